"""Chapter 3's attention model beside JoeyNMT's: one machine, one run, taking turns.

Both translate Multi30k from English to German with the same subwords: JoeyNMT gets the
text as ids, so that its words are our subwords and both vocabularies have one size.
Both are a bidirectional GRU, Bahdanau's attention and a GRU as decoder, of the same
widths, with the same dropout, smoothing, optimizer, rate, clipping and batches of so
many tokens, padding included. What differs is the order: JoeyNMT looks at the source
after the decoder's step and feeds the result to the next step; ours looks before the
step and has the paper's maxout readout, which costs some more parameters.

Each trains in its own loop with its own loader, until it has seen so many target tokens
(end symbols counted, padding not); then the other one has its turn. The first turns
are for warming up. The clock includes making batches on both sides. Then both
translate test2016 with a beam of 5, the same length penalty, the same limit of length
and as many sentences at once, from text to text. Reported are the turns' medians; CPU
seconds count all threads.

Our training asks glibc to keep freed memory. JoeyNMT gets the same, by environment
variables, unless `--malloc plain` is given.

JoeyNMT 2.3.0 wants old versions of packages that it hardly uses, so it lives in an
environment of its own, with newer ones. With those of joeynmt-requirements.txt it runs
unchanged on torch 2.13 and Python 3.11:

    python3.11 -m venv .venv-joeynmt
    .venv-joeynmt/bin/pip install --no-deps -r benchmarks/joeynmt-requirements.txt

    python benchmarks/attention.py --joeynmt-python PATH       # some minutes
    python benchmarks/attention.py --tokens 2000 --turns 1 --sentences 20    # a trial
"""

import dataclasses
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from asked import ask

from annotated.attention import Bahdanau, Config
from annotated.data import DataError, replacing
from annotated.decoding import beam_search, corpus_bleu, search_all
from annotated.parallel import Batch, Batches, parallel_lines
from annotated.records import markdown_table, read_record, write_record
from annotated.subwords import END, Subwords
from annotated.training import Recipe, train

BEAM = 5
HELP = """make an environment with JoeyNMT and name its Python:
    python3.11 -m venv .venv-joeynmt
    .venv-joeynmt/bin/pip install --no-deps -r benchmarks/joeynmt-requirements.txt
    python benchmarks/attention.py --joeynmt-python .venv-joeynmt/bin/python"""
KEEP_MEMORY = {  # what annotated.training asks of glibc, as environment variables
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
TABLE = {
    "": "*",
    "training, tokens/s": "{metrics[train_tokens_per_second_*]:,.0f}",
    "beam 5, sentences/s": "{metrics[beam5_sentences_per_second_*]:,.1f}",
    "tokens a sentence": "{metrics[beam5_mean_length_*]:.1f}",
    "BLEU": "{metrics[bleu_tok_lc_*]:.1f}",
    "parameters": "{metrics[parameters_*]:,.0f}",
}


@dataclass(frozen=True)
class Settings:
    """Measure the attention model beside JoeyNMT."""

    joeynmt_python: Path = Path(".venv-joeynmt/bin/python")
    """The Python of an environment in which JoeyNMT is installed."""
    vocabulary: int = 4000
    """Subwords of each language, special symbols included."""
    d_embedding: int = 256
    """Width of the embeddings."""
    d_hidden: int = 256
    """Width of each GRU's state, of the scores and of the readout."""
    dropout: float = 0.3
    smoothing: float = 0.1
    learning_rate: float = 2e-3
    batch_tokens: int = 1536
    """Positions of a batch on its longer side, padding included."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of our training; JoeyNMT's is fp32 on a CPU."""
    tokens: int = 40_000
    """Target tokens of one turn of training."""
    warm_up: int = 2
    """Turns of each that do not count."""
    turns: int = 5
    """Turns of each in training that count."""
    repeats: int = 3
    """How often each translates the test sentences."""
    sentences: int = 1000
    """Translate the first so many sentences of test2016."""
    sentence_batch: int = 100
    """Sentences that are searched at once."""
    length_penalty: float = 1.0
    """The exponent of GNMT's length penalty."""
    max_length: int = 50
    """The longest translation, in subwords."""
    threads: int = len(os.sched_getaffinity(0))
    """Threads of each."""
    malloc: Literal["same", "plain"] = "same"
    """Whether JoeyNMT too keeps freed memory."""
    name: str = "attention-benchmark"
    """The record's name."""
    scratch: Path = Path("runs/attention-benchmark")
    """Folder for the text that JoeyNMT reads, and for its log."""

    @property
    def measured(self) -> bool:
        """Whether enough is measured to publish it."""
        return self.turns >= 3 and self.repeats >= 3 and self.sentences >= 1000


class Text:
    """Multi30k as both sides read it."""

    def __init__(self, settings: Settings) -> None:
        train_lines = parallel_lines("multi30k", "en-de", "train")
        test = parallel_lines("multi30k", "en-de", "test2016")
        self.test, self.references = (side[: settings.sentences] for side in test)
        self.subwords = [
            Subwords.learn(side, settings.vocabulary, progress=False)
            for side in train_lines
        ]
        self.ids = [
            subwords.encode_all(side)
            for subwords, side in zip(self.subwords, train_lines, strict=True)
        ]
        self.test_ids = self.subwords[0].encode_all(self.test)

    def write(self, folder: Path) -> None:
        """The ids as words, one sentence a line, and the lists of these words.

        JoeyNMT adds an unknown word of its own. So that it has no more words than we,
        the lists leave out one id that the text never uses.
        """
        for language, subwords, rows in zip(
            ("en", "de"), self.subwords, self.ids, strict=True
        ):
            write_lines(folder / f"train.{language}", map(as_words, rows))
            seen = {i for row in [*rows, *self.test_ids] for i in row}
            known = range(END + 1, len(subwords))
            spare = next(i for i in known if i not in seen)
            words = [str(i) for i in known if i != spare]
            write_lines(folder / f"vocabulary.{language}", words)
        write_lines(folder / "test.en", map(as_words, self.test_ids))


def as_words(ids: list[int]) -> str:
    """A sentence of ids as JoeyNMT reads it."""
    return " ".join(map(str, ids))


def write_lines(path: Path, lines: Any) -> None:
    """A text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def joeynmt_config(settings: Settings, folder: Path) -> dict[str, Any]:
    """Our settings in JoeyNMT's words."""
    embeddings = {"embedding_dim": settings.d_embedding, "dropout": settings.dropout}
    rnn = {
        "type": "recurrent",
        "rnn_type": "gru",
        "hidden_size": settings.d_hidden,
        "num_layers": 1,
        "embeddings": embeddings,
    }
    decoder = {
        "attention": "bahdanau",
        "init_hidden": "bridge",
        "input_feeding": True,
        "hidden_dropout": settings.dropout,
    }
    side = {"level": "word", "tokenizer_type": None}
    languages = {
        name: side | {"lang": lang, "voc_file": str(folder / f"vocabulary.{lang}")}
        for name, lang in (("src", "en"), ("trg", "de"))
    }
    return {
        "name": "attention",
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "random_seed": 0,
        "threads": settings.threads,
        "data": languages
        | {
            "train": str(folder / "train"),
            "test": str(folder / "test"),
            "dataset_type": "plain",
        },
        "training": {
            "batch_size": settings.batch_tokens,
            "batch_type": "token",
            "normalization": "tokens",
            "optimizer": "adam",
            "adam_betas": [0.9, 0.98],
            "learning_rate": settings.learning_rate,
            "learning_rate_min": 0.0,
            "scheduling": "exponential",  # by a factor of one: constant
            "decrease_factor": 1.0,
            "label_smoothing": settings.smoothing,
            "clip_grad_norm": 1.0,
            "epochs": 1_000_000,
            "logging_freq": 100,
            "validation_freq": 1_000_000_000,
        },
        "testing": {
            "batch_size": settings.sentence_batch,
            "batch_type": "sentence",
            "beam_alpha": settings.length_penalty,
            "max_output_length": settings.max_length,
        },
        "model": {
            "encoder": rnn | {"bidirectional": True},
            "decoder": rnn | decoder,
        },
    }


class JoeyNMT:
    """JoeyNMT in a process of its own, which works when asked and else sleeps."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.scratch
        (folder / "model").mkdir(parents=True, exist_ok=True)
        config = folder / "joeynmt.yaml"
        config.write_text(json.dumps(joeynmt_config(settings, folder)))
        self.log = folder / "joeynmt.log"
        threads = str(settings.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        if settings.malloc == "same":
            environment |= KEEP_MEMORY
        side = Path(__file__).with_name("attention_joeynmt.py")
        try:
            self.process = subprocess.Popen(
                [settings.joeynmt_python, "-s", side, config],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log.open("w"),
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError:
            raise DataError(f"{settings.joeynmt_python}: no Python; {HELP}") from None
        self.about = self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that JoeyNMT's side says."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text().strip().splitlines()[-1:]
            why = f"JoeyNMT's side ended ({' '.join(tail)}); its log is {self.log}"
            lacking = "No module named" in why
            raise DataError(f"{why}; {HELP}" if lacking else why)
        return dict(json.loads(line))

    def ask(self, **order: int) -> dict[str, Any]:
        """Give an order and wait until it is done."""
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """No more orders: the process ends by itself."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class AllTurnsTakenError(Exception):
    """Ends our training when both have had all their turns."""


class Turns:
    """Our batches, turn by turn: between two turns of ours JoeyNMT has one."""

    def __init__(self, batches: Batches, joeynmt: JoeyNMT, settings: Settings) -> None:
        self.batches, self.joeynmt, self.settings = batches, joeynmt, settings
        self.ours: list[dict[str, Any]] = []
        self.theirs: list[dict[str, Any]] = []
        self.begin()

    def begin(self) -> None:
        """Start the clock of a turn."""
        self.tokens = self.updates = 0
        self.clock, self.cpu = time.perf_counter(), time.process_time()

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """What `train` reads. After a batch is learned the next is asked for."""
        if not self.tokens:
            self.begin()
        for batch in self.batches.epoch(n, start):
            yield batch
            self.tokens += batch.tokens
            self.updates += 1
            if self.tokens >= self.settings.tokens:
                self.end()
                self.begin()

    def end(self) -> None:
        """Stop the clock, then let JoeyNMT have its turn."""
        seconds = time.perf_counter() - self.clock
        self.ours.append(
            {
                "tokens": self.tokens,
                "updates": self.updates,
                "seconds": seconds,
                "cpu_seconds": time.process_time() - self.cpu,
            }
        )
        self.theirs.append(self.joeynmt.ask(train=self.settings.tokens))
        number, total = len(self.ours), self.settings.warm_up + self.settings.turns
        rates = [f"{speed(t[-1]):,.0f}" for t in (self.ours, self.theirs)]
        rate = " and ".join(rates)
        print(f"[{number}/{total}] training: {rate} tokens/s", flush=True)
        if number == total:
            raise AllTurnsTakenError


def speed(turn: dict[str, Any]) -> float:
    """Tokens a second."""
    return float(turn["tokens"] / turn["seconds"])


def train_both(
    model: Bahdanau, text: Text, joeynmt: JoeyNMT, settings: Settings
) -> Turns:
    """Train both, turn by turn, and tell how long the turns took."""
    turns = Turns(Batches(*text.ids, settings.batch_tokens), joeynmt, settings)
    recipe = Recipe(
        updates=1_000_000_000,
        learning_rate=settings.learning_rate,
        schedule="constant",
        warmup=0,
        smoothing=settings.smoothing,
        precision=settings.precision,
    )
    try:
        train(model, turns, recipe, progress=False)
    except AllTurnsTakenError:
        return turns
    raise KeyboardInterrupt  # nothing else ends this training


def translate(model: Bahdanau, text: Text, settings: Settings) -> dict[str, Any]:
    """The test sentences by our beam search, from text to text."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = search_all(
        model,
        text.subwords[0].encode_all(text.test),
        search=beam_search,
        batch=settings.sentence_batch,
        progress=False,
        beam=BEAM,
        length_penalty=settings.length_penalty,
        penalty="gnmt",
        max_length=settings.max_length,
    )
    sentences = [text.subwords[1].decode(best.ids).strip() for best, *_ in found]
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(len(best.ids) + 1 for best, *_ in found),
        "sentences": sentences,
    }


def translate_both(
    model: Bahdanau, text: Text, joeynmt: JoeyNMT, settings: Settings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Let both translate in turn."""
    ours, theirs = [], []
    for number in range(1, settings.repeats + 1):
        ours.append(translate(model, text, settings))
        theirs.append(joeynmt.ask(beam=BEAM))
        rates = [f"{len(text.test) / t[-1]['seconds']:,.1f}" for t in (ours, theirs)]
        print(
            f"[{number}/{settings.repeats}] beam {BEAM}: {' and '.join(rates)} "
            "sentences/s",
            flush=True,
        )
    for turn in theirs:
        rows = [[int(w) for w in row if w.isdecimal()] for row in turn["sentences"]]
        turn["sentences"] = [text.subwords[1].decode(row).strip() for row in rows]
    return ours, theirs


def spread(name: str, who: str, values: list[float]) -> dict[str, float]:
    """The median and the two extremes of the turns."""
    return {
        f"{name}_{who}": statistics.median(values),
        f"{name}_{who}_min": min(values),
        f"{name}_{who}_max": max(values),
    }


def measures(
    who: str,
    trained: list[dict[str, Any]],
    translated: list[dict[str, Any]],
    text: Text,
) -> dict[str, float]:
    """All that is told of one side."""
    count = len(text.test)
    bleu = corpus_bleu(translated[-1]["sentences"], text.references, lowercase=True)
    each = [turn["seconds"] for turn in translated]
    return {
        **spread("train_tokens_per_second", who, [speed(turn) for turn in trained]),
        **spread("beam5_sentences_per_second", who, [count / s for s in each]),
        f"train_tokens_per_cpu_second_{who}": statistics.median(
            turn["tokens"] / turn["cpu_seconds"] for turn in trained
        ),
        f"beam5_sentences_per_cpu_second_{who}": statistics.median(
            count / turn["cpu_seconds"] for turn in translated
        ),
        f"beam5_tokens_per_second_{who}": statistics.median(map(speed, translated)),
        f"beam5_mean_length_{who}": translated[-1]["tokens"] / count,
        f"bleu_tok_lc_{who}": bleu[0],
        f"tokens_per_update_{who}": sum(turn["tokens"] for turn in trained)
        / sum(turn["updates"] for turn in trained),
    }


def measure(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics, and what the record's config tells beside the settings."""
    text = Text(settings)
    settings.scratch.mkdir(parents=True, exist_ok=True)
    text.write(settings.scratch)
    joeynmt = JoeyNMT(settings)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    config = Config(
        d_embedding=settings.d_embedding,
        d_hidden=settings.d_hidden,
        d_readout=settings.d_hidden,
        dropout=settings.dropout,
    )
    model = Bahdanau(config, *map(len, text.subwords))
    sizes = [joeynmt.about[f"{side}_vocabulary"] for side in ("source", "target")]
    if sizes != [len(s) for s in text.subwords]:
        raise DataError(f"JoeyNMT's vocabularies have {sizes} words: not ours")
    load = os.getloadavg()[0]
    print(f"ours and JoeyNMT {joeynmt.about['versions']['joeynmt']}, load {load:.1f}")
    turns = train_both(model, text, joeynmt, settings)
    ours, theirs = translate_both(model, text, joeynmt, settings)
    joeynmt.close()
    skip = settings.warm_up
    metrics = measures("ours", turns.ours[skip:], ours, text)
    metrics |= measures("joeynmt", turns.theirs[skip:], theirs, text)
    metrics["parameters_ours"] = sum(p.numel() for p in model.parameters())
    metrics["parameters_joeynmt"] = joeynmt.about["parameters"]
    ratios = {
        ratio: metrics[f"{name}_ours"] / metrics[f"{name}_joeynmt"]
        for ratio, name in {
            "train_ratio_joeynmt": "train_tokens_per_second",
            "beam5_ratio_joeynmt": "beam5_sentences_per_second",
            "beam5_tokens_ratio_joeynmt": "beam5_tokens_per_second",
            "train_cpu_ratio_joeynmt": "train_tokens_per_cpu_second",
            "beam5_cpu_ratio_joeynmt": "beam5_sentences_per_cpu_second",
        }.items()
    }
    about = {
        "joeynmt_versions": joeynmt.about["versions"],
        "load_before": load,
        "turns_ours": turns.ours,
        "turns_joeynmt": turns.theirs,
    }
    return ratios | metrics, about


def report(settings: Settings) -> None:
    """Measure, write the record and print it as a table."""
    metrics, about = measure(settings)
    chosen = dataclasses.asdict(settings)
    for key in ("joeynmt_python", "name", "scratch"):
        del chosen[key]
    path = write_record(
        settings.name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/attention.py", *options()]),
        config=chosen | about,
        metrics=metrics,
        packages=["numpy", "tokenizers", "sacrebleu"],
        folder=None if settings.measured else settings.scratch,
    )
    print(f"\n{markdown_table([read_record(path)], TABLE, ['ours', 'joeynmt'])}\n")
    for name, value in metrics.items():
        if "ratio" in name:
            print(f"{name}: {value:.2f}")
    print(f"Record: {path}")


def options() -> list[str]:
    """The command's options, but for the place of JoeyNMT: that is one's own matter."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word == "--joeynmt-python":
            next(words)
        elif not word.startswith("--joeynmt-python="):
            kept.append(word)
    return kept


if __name__ == "__main__":
    sys.exit(ask(Settings, report, __doc__))
