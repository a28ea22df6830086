"""Chapter 4's Transformer beside four other programs: one machine, one run, in turns.

Training. Ours, torch's `nn.Transformer`, Hugging Face's Marian and JoeyNMT's
Transformer make updates on the same batches of Multi30k, English to German, with one
vocabulary for both languages, in two sizes: `tiny` (4 + 4 layers, 128 wide, networks of
256) and `d256` (4 + 4, 256, 1024: the preset `small`), 4 heads, dropout 0.3. All of
them add sinusoids, tie both embeddings and the output layer, normalise after each sum,
drop in the same places (embeddings, attention weights, inside the network, each
sublayer), smooth by 0.1, clip and use torch's fused Adam. Counted are target words a
second, END among them and padding not, through forward, backward, clipping and step;
the making of batches is not.

What differs: ours rounds the inputs of its matrix products to bfloat16 (autocast, as
`annotated train transformer` does), and makes logits in chunks and for real words only;
`ours_fp32` does the same in float32. The others are float32 throughout, compute all
logits and leave padding out of the loss. `nn.Transformer` has one LayerNorm
more at the end of each stack. JoeyNMT counts how many words it got right, and smooths
over two words fewer. All get glibc's memory kept, as our training asks; for JoeyNMT
that and the fused Adam are gifts.

Translating. A trained model of ours, the same weights in Hugging Face's `generate`, and
in CTranslate2 (C++, float32), translate test2016 from ids to ids, greedily and with a
beam of 5, one sentence at a time and a hundred of like length at a time. Ours and
`generate` do so twice, as they come and compiled: `ours_compiled` as `annotated
translate --compile` does, `hf_compiled` with its forward pass made one program in the
same way. `ratio_hf` is the faster of ours beside `generate` as it comes, and
`plain_ratio_hf` is ours as it comes. All may write so many words and divide a score by
the length; they differ in when a beam search ends. The record tells which share of the
translations is equal to ours. Each has one thread, for these models are small.

All take turns, the first of which is for warming up, and the order goes round. Reported
are medians. A ratio is our speed divided by the peer's.

JoeyNMT needs an environment of its own, see `benchmarks/attention.py`. `--peers` leaves
it out. The model is the folder of a run:

    annotated train transformer --preset tiny --out runs/tiny
    python benchmarks/transformer.py --run runs/tiny --joeynmt-python PATH
    python benchmarks/transformer.py --run runs/tiny --turns 1 --sentences 50  # a trial
    python benchmarks/transformer.py --device cuda     # training alone, on a GPU

On a GPU the size is `base`, in bfloat16 and compiled, and the record tells what share
of the GPU's peak each reaches by its own operations, as torch counts them.
"""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from asked import ask
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from annotated.data import DataError
from annotated.decoding import corpus_bleu
from annotated.parallel import Batch, Batches, parallel_lines
from annotated.records import markdown_table, read_record, write_record
from annotated.subwords import Subwords
from annotated.training import keep_memory
from annotated.transformer import PRESETS, Config, Transformer
from annotated.translation import Translator
from attention import HELP, KEEP_MEMORY, JoeyNMT, options, speed, spread

try:
    import transformer_peers as peers
except ImportError as error:
    sys.exit(
        f"benchmark: error: no package {error.name}; install the peers: "
        "python -m pip install transformers ctranslate2"
    )

HOW = HELP.replace("benchmarks/attention.py", "benchmarks/transformer.py")
SIZES = {"tiny": "tiny", "d256": "small"}
DROPOUT = ("dropout", "attention_dropout", "activation_dropout")
SEARCHES = {"greedy": 1, "beam5": 5}
PEAKS = {"A100": 312.0, "H100": 989.4, "H200": 989.4, "L4": 121.0, "4090": 165.2}
TRAINED = {
    "training": "*",
    "words/s": "{metrics[train_tokens_per_second_*]:,.0f}",
    "words/CPU-s": "{metrics[train_tokens_per_cpu_second_*]:,.0f}",
    "parameters": "{metrics[parameters_*]:,.0f}",
}
TRANSLATED = {"sentences/s": "*"} | {
    f"{search}, {batch} at once": f"{{metrics[{search}_b{batch}_sentences_per_second_*"
    "]:,.1f}"
    for search in SEARCHES
    for batch in (1, 100)
}
COMPILED = {
    "training": "*",
    "words/s": "{metrics[train_tokens_per_second_*]:,.0f}",
    "share of the peak": "{metrics[share_of_peak_*]:.3f}",
}


@dataclass(frozen=True)
class Settings:
    """Measure the Transformer beside four other programs."""

    run: Path | None = None
    """The folder of a trained `tiny`, to translate with."""
    joeynmt_python: Path = Path(".venv-joeynmt/bin/python")
    """The Python of an environment in which JoeyNMT is installed."""
    device: Literal["cpu", "cuda"] = "cpu"
    """With cuda, measure training of `base` on a GPU."""
    parts: tuple[Literal["training", "decoding"], ...] = ("training", "decoding")
    """What to measure."""
    peers: tuple[Literal["nn_transformer", "marian", "joeynmt"], ...] = (
        "nn_transformer",
        "marian",
        "joeynmt",
    )
    """Beside whom to train."""
    sizes: tuple[Literal["tiny", "d256"], ...] = ("tiny", "d256")
    """Which models to train."""
    vocabulary: int = 10_000
    """Subwords of both languages together, special symbols included."""
    batch_tokens: int | None = None
    """Places of a batch on its longer side: 4,096, on a GPU 25,000."""
    batches: int = 6
    """Batches of one turn of training, the same in each turn."""
    warm_up: int = 1
    """Turns of each that do not count."""
    turns: int = 5
    """Turns of each in training that count."""
    repeats: int = 3
    """How often each translates the sentences, after a warm-up."""
    sentences: int = 1000
    """Translate the first so many sentences of test2016, a hundred at a time."""
    sentences_alone: int = 200
    """Translate the first so many one at a time."""
    max_length: int = 60
    """The longest translation, in subwords."""
    threads: int = torch.get_num_threads()
    """CPU threads of each in training."""
    threads_translating: int = 1
    """CPU threads of each in translating: models of these sizes like one."""
    peak_teraflops: float | None = None
    """The GPU's peak in bfloat16, dense, if it is none that the program knows."""
    name: str | None = None
    """The record's name, else transformer-benchmark, on a GPU with -cuda."""
    scratch: Path = Path("runs/transformer-benchmark")
    """Folder for exported models, JoeyNMT's files and records of trials."""

    @property
    def record_name(self) -> str:
        """The name under which the book asks for the record."""
        return self.name or (
            "transformer-benchmark" + ("-cuda" if self.device == "cuda" else "")
        )

    @property
    def places(self) -> int:
        """Places of a batch."""
        return self.batch_tokens or (25_000 if self.device == "cuda" else 4096)

    @property
    def measured(self) -> bool:
        """Whether enough is measured to publish it."""
        full = len(self.parts) == 2 and len(self.peers) == 3 and len(self.sizes) == 2
        enough = self.repeats >= 3 and self.sentences >= 1000
        return self.turns >= 3 and (self.device == "cuda" or (full and enough))


def training_batches(settings: Settings) -> tuple[list[Batch], int]:
    """The batches that all learn from, and the size of the vocabulary."""
    sides = parallel_lines("multi30k", "en-de", "train")
    subwords = Subwords.learn(sides[0] + sides[1], settings.vocabulary, progress=False)
    batches = Batches(*map(subwords.encode_all, sides), tokens=settings.places)
    chosen = list(zip(range(settings.batches), batches.epoch(0), strict=False))
    return [batch for _, batch in chosen], len(subwords)


def shape(size: str) -> Config:
    """A preset; it drops where the peers do, who have one rate for all places."""
    config = PRESETS[SIZES.get(size, size)]
    return dataclasses.replace(config, **dict.fromkeys(DROPOUT, config.dropout))


def joeynmt_model(config: Config) -> dict[str, Any]:
    """Our sizes in JoeyNMT's words; first values after Glorot, as in its examples."""
    stack = {
        "type": "transformer",
        "num_layers": config.layers,
        "num_heads": config.heads,
        "hidden_size": config.d_model,
        "ff_size": config.d_ff,
        "dropout": config.dropout,
        "layer_norm": config.norm,
        "embeddings": {
            "embedding_dim": config.d_model,
            "scale": True,
            "dropout": config.dropout,
        },
    }
    return {
        "tied_embeddings": True,
        "tied_softmax": True,
        "initializer": "xavier_uniform",
        "embed_initializer": "xavier_uniform",
        "encoder": stack,
        "decoder": stack,
    }


class JoeyLearner(JoeyNMT):
    """JoeyNMT's Transformer in a process of its own, which learns when asked."""

    def __init__(
        self, size: str, batches: Sequence[Batch], vocab: int, settings: Settings
    ) -> None:
        settings.scratch.mkdir(parents=True, exist_ok=True)
        written = settings.scratch / "batches.pt"
        torch.save([batch._asdict() for batch in batches], written)
        self.config = {
            "model": joeynmt_model(shape(size)),
            "vocabulary": vocab,
            "smoothing": peers.SMOOTHING,
            "learning_rate": peers.LEARNING_RATE,
            "betas": peers.BETAS,
            "clip": peers.CLIP,
            "threads": settings.threads,
            "batches": str(written),
        }
        orders = settings.scratch / f"joeynmt-{size}.json"
        orders.write_text(json.dumps(self.config))
        self.log = settings.scratch / f"joeynmt-{size}.log"
        self.process = start_joeynmt(settings, orders, self.log)
        self.about = self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that JoeyNMT's side says."""
        try:
            return super().answer()
        except DataError as error:
            raise DataError(str(error).replace(HELP, HOW)) from None

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return int(self.about["parameters"])

    def learn(self, batches: Sequence[Batch], device: str) -> dict[str, Any]:
        """Updates on these batches, all of which it has as a file."""
        return self.ask(train=list(range(len(batches))))  # type: ignore[arg-type]


def start_joeynmt(settings: Settings, config: Path, log: Path) -> Any:
    """JoeyNMT's side, with pipes for orders and answers."""
    program = Path(__file__).with_name("transformer_joeynmt.py")
    threads = {"OMP_NUM_THREADS": str(settings.threads)}
    try:
        return subprocess.Popen(
            [settings.joeynmt_python, "-s", program, config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            env=os.environ | threads | KEEP_MEMORY,
            text=True,
            start_new_session=True,  # Ctrl-C is for us
        )
    except OSError:
        raise DataError(f"{settings.joeynmt_python}: no Python; {HOW}") from None


def learners(
    size: str, batches: Sequence[Batch], vocab: int, settings: Settings
) -> dict[str, Any]:
    """Ours in two precisions, and the peers that are wanted."""
    config = shape(size)
    found: dict[str, Any] = {
        "ours": peers.our_learner(config, vocab, "bf16"),
        "ours_fp32": peers.our_learner(config, vocab, "fp32"),
    }
    kinds = {"nn_transformer": peers.TorchTransformer, "marian": peers.Marian}
    for name in settings.peers:
        if name == "joeynmt":
            found[name] = JoeyLearner(size, batches, vocab, settings)
        else:
            found[name] = peers.their_learner(kinds[name], config, vocab)
    return found


def in_turns(
    title: str,
    work: dict[str, Callable[[], dict[str, Any]]],
    warm_up: int,
    turns: int,
    rate: Callable[[dict[str, Any]], float],
) -> dict[str, list[dict[str, Any]]]:
    """Let all work in turn, each turn beginning with another, and tell the rates."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in work}
    names = list(work)
    for turn in range(warm_up + turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            result = work[name]()
            if turn >= warm_up:
                found[name].append(result)
            label = f"[{turn + 1}/{warm_up + turns}] {title}, {name}"
            print(f"{label}: {rate(result):,.1f}/s", flush=True)
    return found


def training_measures(
    size: str, found: dict[str, list[dict[str, Any]]], who: dict[str, Any]
) -> dict[str, float]:
    """Medians of all turns, and the ratios."""
    metrics: dict[str, float] = {}
    for name, turns in found.items():
        rates = {
            "train_tokens_per_second": [speed(turn) for turn in turns],
            "train_tokens_per_cpu_second": [
                turn["tokens"] / turn["cpu_seconds"] for turn in turns
            ],
        }
        for kind, values in rates.items():
            metrics |= spread(kind, f"{size}_{name}", values)
        metrics[f"parameters_{size}_{name}"] = who[name].parameters
        metrics[f"last_loss_{size}_{name}"] = turns[-1]["loss"]
    ratios = {}
    for ratio, kind in (("train_ratio", "second"), ("train_cpu_ratio", "cpu_second")):
        speeds = {n: metrics[f"train_tokens_per_{kind}_{size}_{n}"] for n in found}
        for name in speeds.keys() - {"ours", "ours_fp32"}:
            ratios[f"{ratio}_{name}_{size}"] = speeds["ours"] / speeds[name]
    return dict(sorted(ratios.items())) | metrics


def measure_training(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Train all, size by size."""
    print("learning the vocabulary", flush=True)
    batches, vocab = training_batches(settings)
    metrics: dict[str, float] = {}
    about: dict[str, Any] = {"batch_words": [batch.tokens for batch in batches]}
    for size in settings.sizes:
        who = learners(size, batches, vocab, settings)
        work = {name: told(one.learn, batches, "cpu") for name, one in who.items()}
        turns = in_turns(
            f"training {size}", work, settings.warm_up, settings.turns, speed
        )
        metrics |= training_measures(size, turns, who)
        about[f"turns_{size}"] = turns
        if "joeynmt" in who:
            about["joeynmt_versions"] = who["joeynmt"].about["versions"]
            who["joeynmt"].close()
    return metrics, about


def told(work: Callable[..., Any], *what: Any) -> Callable[[], Any]:
    """A call that is made later."""
    return lambda: work(*what)


def load(run: Path | None) -> Translator:
    """The trained model, which must be a Transformer."""
    if run is None:
        raise DataError(
            "--run: decoding needs a trained model; make one with `annotated train "
            "transformer --preset tiny --out runs/tiny` and give --run runs/tiny, or "
            "measure training alone with --parts training"
        )
    translator = Translator.load(run)
    if not isinstance(translator.model, Transformer):
        raise DataError(f"--run {run}: no Transformer; give the folder of one")
    return translator


def timed(engine: Any, prepared: Any, order: Any) -> dict[str, Any]:
    """One translation of all, and how long it took."""
    clock, cpu = time.perf_counter(), time.process_time()
    answers = engine.translate(prepared, order)
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "sentences": len(answers),
        "words": sum(len(ids) + 1 for ids in answers),
        "answers": answers,
    }


def measure_search(
    name: str,
    order: Any,
    sources: list[list[int]],
    engines: dict[str, Any],
    settings: Settings,
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """One way to search, by all engines: metrics, and the answers of each."""
    work = {
        who: told(timed, engine, engine.prepare(sources), order)
        for who, engine in engines.items()
    }
    found = in_turns(
        name,
        work,
        1,
        settings.repeats,
        lambda turn: turn["sentences"] / turn["seconds"],
    )
    answers = {who: turns[-1]["answers"] for who, turns in found.items()}
    metrics: dict[str, float] = {}
    for who, turns in found.items():
        rates = [turn["sentences"] / turn["seconds"] for turn in turns]
        cpu = [turn["sentences"] / turn["cpu_seconds"] for turn in turns]
        metrics |= spread(f"{name}_sentences_per_second", who, rates)
        metrics |= spread(f"{name}_sentences_per_cpu_second", who, cpu)
        metrics[f"{name}_mean_length_{who}"] = turns[-1]["words"] / len(sources)
        same = sum(a == b for a, b in zip(answers["ours"], answers[who], strict=True))
        if who != "ours":
            metrics[f"{name}_equal_share_{who}"] = same / len(sources)
    speeds = {who: metrics[f"{name}_sentences_per_second_{who}"] for who in found}
    ours = speeds.pop("ours")
    best = max(ours, speeds.pop("ours_compiled"))
    ratios = {f"{name}_ratio_{who}": best / rate for who, rate in speeds.items()}
    ratios[f"{name}_plain_ratio_hf"] = ours / speeds["hf"]
    return ratios | metrics, answers


def measure_decoding(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Translate with all engines, in all ways."""
    translator = load(settings.run)
    settings.scratch.mkdir(parents=True, exist_ok=True)
    lines, references = parallel_lines("multi30k", "en-de", "test2016")
    sources = translator.source.encode_all(lines[: settings.sentences])
    threads = settings.threads_translating
    engines = peers.translators(translator, settings.scratch, threads)
    metrics: dict[str, float] = {}
    for search, beam in SEARCHES.items():
        for batch, count in ((1, settings.sentences_alone), (100, settings.sentences)):
            order = peers.Order(beam, batch, settings.max_length)
            name = f"{search}_b{batch}"
            some = sources[:count]
            more, answers = measure_search(name, order, some, engines, settings)
            metrics |= more
            for who, ids in answers.items():
                text = [translator.target.decode(row).strip() for row in ids]
                bleu = corpus_bleu(text, references[: len(text)], lowercase=True)
                metrics[f"{name}_bleu_tok_lc_{who}"] = bleu.score
    return metrics, {"decoded_model": dataclasses.asdict(translator.model.config)}


def peak_flops(settings: Settings) -> float:
    """The GPU's operations a second at best."""
    if settings.peak_teraflops is not None:
        return settings.peak_teraflops * 1e12
    name = torch.cuda.get_device_name()
    for known, teraflops in PEAKS.items():
        if known in name:
            return teraflops * 1e12
    raise DataError(
        f"{name}: its peak is not known here; give --peak-teraflops, dense, in bfloat16"
    )


def compiled_learners(vocab: int) -> dict[str, Any]:
    """`base` on the GPU; our loss has autocast inside, the peers get it here."""
    config = shape("base")
    found = {
        "ours": peers.our_learner(config, vocab, "bf16"),
        "nn_transformer": peers.their_learner(peers.TorchTransformer, config, vocab),
        "marian": peers.their_learner(peers.Marian, config, vocab),
    }
    for name, learner in found.items():
        learner.model.to("cuda")
        if name != "ours":
            learner.loss = in_bfloat16(learner.loss)
    return found


def in_bfloat16(loss: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """The loss under autocast."""

    def low(batch: Batch) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return loss(batch)

    return low


def operations(learner: Any, batches: Sequence[Batch]) -> float:
    """Floating-point operations of forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        for batch in tqdm(batches, desc="counting operations", unit="batch"):
            learner.loss(batch).backward()
    learner.optimizer.zero_grad()
    return float(counter.get_total_flops())


def compile_learner(learner: Any) -> None:
    """Compile what is between ids and the output layer, or all of a peer's model."""
    model = learner.model
    if isinstance(model, Transformer):
        model.features = torch.compile(model.features, dynamic=True)  # type: ignore
    else:
        model.compile(dynamic=True)


def measure_gpu(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Train `base` on a GPU, compiled, in bfloat16."""
    if not torch.cuda.is_available():
        raise DataError(
            "--device cuda: skipped, torch finds no CUDA GPU; take --device cpu, or "
            "install a torch that is built for CUDA"
        )
    peak = peak_flops(settings)
    torch.set_float32_matmul_precision("high")
    batches, vocab = training_batches(settings)
    batches = [batch.to("cuda") for batch in batches]
    who = compiled_learners(vocab)
    flops = {name: operations(learner, batches) for name, learner in who.items()}
    for learner in who.values():
        compile_learner(learner)
    work = {name: told(one.learn, batches, "cuda") for name, one in who.items()}
    warm_up = max(2, settings.warm_up)  # the first turn compiles
    turns = in_turns("training base", work, warm_up, settings.turns, speed)
    metrics = training_measures("base", turns, who)
    for name, done in turns.items():
        share = [flops[name] / turn["seconds"] / peak for turn in done]
        metrics |= spread("share_of_peak", f"base_{name}", share)
    return metrics, {"turns_base": turns, "flops_a_turn": flops, "peak_flops": peak}


def measure(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics, and what the record's config tells beside the settings."""
    keep_memory()
    torch.set_num_threads(settings.threads)
    before = {"load_before": os.getloadavg()[0]}
    if settings.device == "cuda":
        metrics, about = measure_gpu(settings)
        return metrics, before | about
    if "decoding" in settings.parts:
        load(settings.run)  # what is missing should be told at once
    metrics, about = {}, {}
    parts = {"training": measure_training, "decoding": measure_decoding}
    threads = {"training": settings.threads, "decoding": settings.threads_translating}
    for part in settings.parts:
        torch.set_num_threads(threads[part])
        more, told_more = parts[part](settings)
        metrics, about = metrics | more, about | told_more
    ratios = {name: value for name, value in metrics.items() if "ratio" in name}
    return ratios | metrics, before | about


def tables(record: dict[str, Any], settings: Settings) -> str:
    """What was measured, to be read."""
    who = ["ours", "ours_fp32", *settings.peers]
    if settings.device == "cuda":
        rows = [f"base_{name}" for name in ("ours", "nn_transformer", "marian")]
        return markdown_table([record], COMPILED, rows)
    found = []
    if "training" in settings.parts:
        rows = [f"{size}_{name}" for size in settings.sizes for name in who]
        found.append(markdown_table([record], TRAINED, rows))
    if "decoding" in settings.parts:
        rows = ["ours", "ours_compiled", "hf", "hf_compiled", "ctranslate2"]
        found.append(markdown_table([record], TRANSLATED, rows))
    return "\n\n".join(found)


def report(settings: Settings) -> None:
    """Measure, write the record and print it as tables."""
    metrics, about = measure(settings)
    chosen = dataclasses.asdict(settings) | {"batch_tokens": settings.places}
    for key in ("joeynmt_python", "name", "scratch", "run"):
        del chosen[key]
    learning = {
        "smoothing": peers.SMOOTHING,
        "learning_rate": peers.LEARNING_RATE,
        "betas": list(peers.BETAS),
        "clip": peers.CLIP,
        "optimizer": "Adam, fused, for all",
        "length_penalty": 1.0,
        "models": {size: dataclasses.asdict(shape(size)) for size in SIZES},
        "differences": DIFFERENCES,
    }
    path = write_record(
        settings.record_name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/transformer.py", *chosen_options()]),
        config=chosen | learning | about,
        metrics=metrics,
        packages=peers.LIBRARIES,
        folder=None if settings.measured else settings.scratch,
    )
    print(f"\n{tables(read_record(path), settings)}\n")
    for name, value in metrics.items():
        if "ratio" in name or "equal" in name:
            print(f"{name}: {value:.3f}")
    print(f"Record: {path}")


def chosen_options() -> list[str]:
    """The command's options; of an absolute path only the folder's name is told."""
    return [Path(o).name if Path(o).is_absolute() else o for o in options()]


DIFFERENCES = {
    "ours": "product with the vocabulary in bf16, in chunks, for real words only",
    "ours_fp32": "as ours, in fp32",
    "nn_transformer": "one LayerNorm more after each stack; all logits in fp32",
    "marian": "all logits in fp32",
    "joeynmt": "all logits in fp32; also counts right words; smooths over two fewer",
    "ours_compiled": "a step is one program, as with `annotated translate --compile`",
    "hf_compiled": "the forward pass is one program, made as ours is",
    "hf": "beam search ends by early_stopping=False, ours when no end could win",
    "ctranslate2": "beam search ends when the beam is full of ends",
}


if __name__ == "__main__":
    sys.exit(ask(Settings, report, __doc__))
