"""Word2Vec beside gensim: the same words, one machine, one run.

Two processes of ours against two workers of gensim in its fastest mode, which reads
sentences from a file. Both get the same tokens in the same sentences, and so the same
vocabulary, and the same settings; both start each repeat in a fresh process and take
turns, so that a machine that slows down slows both. The clock runs while `train` does:
reading, counting and preparing the text is not in it, on either side. Our share of the
clock includes starting the worker processes. CPU seconds are those of all processes.

The vectors of every repeat are judged by the same evaluator, over all words. What is
reported is the median of the repeats.

    python benchmarks/word2vec.py                   # an hour or two on two cores
    python benchmarks/word2vec.py --limit 300000 --repeats 1 --dims 100    # a trial
    python benchmarks/word2vec.py --resume          # go on after an interrupt
    python benchmarks/word2vec.py --device cuda     # ours alone, on a GPU
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import resource
import shlex
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from asked import ask
from torch import Tensor

from annotated.data import (
    DataError,
    Vocabulary,
    corpus_path,
    count_words,
    encode,
    read_tokens,
    replacing,
    wordsim_path,
)
from annotated.records import markdown_table, read_record, write_record
from annotated.word2vec import (
    Config,
    Vectors,
    analogy_score,
    read_pairs,
    read_questions,
    similarity_score,
    train,
)

TABLE = {
    "trained by": "*",
    "words/s": "{metrics[words_per_second_*]:,.0f}",
    "words/CPU-s": "{metrics[words_per_cpu_second_*]:,.0f}",
    "WordSim-353": "{metrics[wordsim353_*]:.3f}",
    "SimLex-999": "{metrics[simlex999_*]:.3f}",
    "analogies": "{metrics[analogies_*]:.3f}",
}


@dataclass(frozen=True)
class Settings:
    """Measure Word2Vec beside gensim."""

    corpus: str = "books"
    """What to train on: books, text8, little-world or the path of a text file."""
    dims: tuple[int, ...] = (100, 300)
    """Widths of vectors to measure."""
    repeats: int = 3
    """How often each contender trains at each width; medians are reported."""
    epochs: int = 3
    """Passes over the text."""
    workers: int = 2
    """Processes of ours and workers of gensim."""
    batch: int = 1024
    """Centre words in one step of ours; a GPU wants more, 8192 say."""
    limit: int | None = None
    """Train on the first so many words only, to try the benchmark out."""
    device: Literal["cpu", "cuda"] = "cpu"
    """With cuda, measure our training alone on the GPU."""
    resume: bool = False
    """Keep the results that an interrupted run of the same settings left behind."""
    name: str | None = None
    """The record's name; default word2vec-benchmark, with -cuda after a GPU's run."""
    scratch: Path = Path("runs/benchmark")
    """Folder for results of single repeats and for gensim's text file."""

    @property
    def contenders(self) -> tuple[str, ...]:
        """Who takes turns: names that end in metrics."""
        return ("ours", "gensim") if self.device == "cpu" else ("ours_cuda",)

    @property
    def record_name(self) -> str:
        """The name under which the book's table asks for the record."""
        device = "" if self.device == "cpu" else "-cuda"
        return self.name or f"word2vec-benchmark{device}"

    @property
    def record_folder(self) -> Path | None:
        """What books give, whole, is published; all else stays with the scratch."""
        full = self.corpus == "books" and self.limit is None
        return None if full else self.scratch

    @property
    def source(self) -> Path:
        """The text to train on, cut to `limit` words if one is given."""
        path = corpus_path(self.corpus)
        if self.limit is None:
            return path
        short = self.scratch / f"{path.name.split('.')[0]}-{self.limit}.txt"
        left = self.limit
        if not short.exists():
            with replacing(short) as temporary, open(temporary, "w") as file:
                for words in read_tokens(path):
                    file.write(" ".join(words[:left]) + "\n")
                    left -= len(words)
                    if left <= 0:
                        break
        return short


@dataclass(frozen=True)
class Job:
    """One training of one contender, in a process of its own."""

    contender: str
    dim: int
    repeat: int
    source: str
    sentences: str
    settings: Settings

    @property
    def result(self) -> Path:
        """The file that this job leaves behind."""
        name = f"{self.contender}-d{self.dim}-{self.repeat}.json"
        return self.settings.scratch / name

    @property
    def config(self) -> Config:
        """The settings of a training; the repeats differ by their seed alone."""
        settings = self.settings
        return Config(
            dim=self.dim,
            epochs=settings.epochs,
            batch=settings.batch,
            seed=self.repeat,
        )

    def identity(self) -> dict[str, Any]:
        """What must be equal for a result to be used again."""
        where = {"contender": self.contender, "workers": self.settings.workers}
        text = {"source": self.source, "size": os.path.getsize(self.source)}
        return dataclasses.asdict(self.config) | where | text


def write_sentences(tokens: Tensor, vocabulary: Vocabulary, path: Path) -> Path:
    """The encoded text as gensim reads it: known words, one sentence a line."""
    words = [*vocabulary.words, "\n"]  # id -1, the end of a sentence, takes the last
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for part in tokens.split(1_000_000):
            text = " ".join([words[i] for i in part.tolist()])
            file.write(text.replace("\n ", "\n") + ("" if text[-1] == "\n" else " "))
    return path


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    own, others = map(
        resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def train_ours(job: Job, vocabulary: Vocabulary) -> tuple[Tensor, float, float]:
    """Our vectors, and the seconds and CPU seconds that training took."""
    tokens = encode(job.source, vocabulary, progress=False)
    device = job.settings.device
    workers = job.settings.workers if device == "cpu" else 1
    clock, cpu = time.perf_counter(), cpu_seconds()
    state = train(tokens, vocabulary.counts, job.config, workers=workers, device=device)
    return state.input, time.perf_counter() - clock, cpu_seconds() - cpu


def train_gensim(job: Job, vocabulary: Vocabulary) -> tuple[Tensor, float, float]:
    """Gensim's vectors in our order of words, and the two times."""
    from gensim.models import Word2Vec

    config = job.config
    model = Word2Vec(
        vector_size=config.dim,
        window=config.window,
        negative=config.negatives,
        sample=config.sample,
        alpha=config.learning_rate,
        ns_exponent=config.power,
        epochs=config.epochs,
        seed=config.seed,
        workers=job.settings.workers,
        sg=1,
        min_count=1,
    )
    model.build_vocab(corpus_file=job.sentences)
    if set(model.wv.index_to_key) != set(vocabulary.words):
        raise RuntimeError("gensim's vocabulary differs from ours")
    clock, cpu = time.perf_counter(), cpu_seconds()
    model.train(
        corpus_file=job.sentences,
        total_words=model.corpus_total_words,
        total_examples=model.corpus_count,
        epochs=config.epochs,
    )
    seconds, cpu = time.perf_counter() - clock, cpu_seconds() - cpu
    return torch.from_numpy(model.wv[vocabulary.words]), seconds, cpu


def scores(vectors: Vectors) -> dict[str, float]:
    """The three benchmarks, by the book's evaluator."""
    found = {
        name: similarity_score(vectors, read_pairs(wordsim_path(name)))[0]
        for name in ("wordsim353", "simlex999")
    }
    questions = read_questions(wordsim_path("analogies"))
    return found | {"analogies": analogy_score(vectors, questions)[0]["total"]}


def measure(job: Job) -> None:
    """Train, time, judge, and leave the result in a file."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))  # no result of half a run
    load = os.getloadavg()[0]
    vocabulary = count_words(job.source, progress=False)
    words = int(vocabulary.counts.sum()) * job.settings.epochs
    run = train_gensim if job.contender == "gensim" else train_ours
    matrix, seconds, cpu = run(job, vocabulary)
    result = {
        "words_per_second": words / seconds,
        "words_per_cpu_second": words / cpu,
        "train_seconds": seconds,
        "load_before": load,
        **scores(Vectors(vocabulary.words, matrix)),
    }
    with replacing(job.result) as temporary:
        temporary.write_text(json.dumps({"job": job.identity(), "result": result}))


def result_of(job: Job) -> dict[str, float] | None:
    """The result that an earlier run of exactly this job left, if there is one."""
    try:
        found = json.loads(job.result.read_text())
        return found["result"] if found["job"] == job.identity() else None
    except (OSError, ValueError, KeyError):
        return None


def results(jobs: list[Job], resume: bool) -> dict[Job, dict[str, float]]:
    """Run all jobs, each in a fresh process; with resume, only those without result."""
    if not resume:
        for job in jobs:
            job.result.unlink(missing_ok=True)
    found = {}
    for number, job in enumerate(jobs, 1):
        print(
            f"[{number}/{len(jobs)}] {job.contender}, d={job.dim}, repeat "
            f"{job.repeat} of {job.settings.repeats}",
            flush=True,
        )
        if result_of(job) is None:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(job,)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise DataError(f"the repeat ended with an error; {GO_ON}")
        found[job] = result_of(job) or {}
        print("    " + ", ".join(f"{k} {v:,.4g}" for k, v in found[job].items()))
    return found


GO_ON = "what is finished is kept: run the command again with --resume"


def medians(found: dict[Job, dict[str, float]]) -> dict[str, float]:
    """Each measure's median over the repeats, and the ratios of words per second."""
    groups: dict[str, list[float]] = {}
    for job, result in found.items():
        for key, value in result.items():
            name = f"{key}_{job.contender}_d{job.dim}"
            if key != "load_before":
                groups.setdefault(name, []).append(value)
    metrics = {name: statistics.median(values) for name, values in groups.items()}
    for dim in sorted({job.dim for job in found}):
        if theirs := metrics.get(f"words_per_second_gensim_d{dim}"):
            ours = metrics[f"words_per_second_ours_d{dim}"]
            metrics[f"words_per_second_ratio_d{dim}"] = ours / theirs
    return metrics


def prepare(settings: Settings) -> list[Job]:
    """Encode the text, write it for gensim, and line up who trains when."""
    source = settings.source
    vocabulary = count_words(source)
    tokens = encode(source, vocabulary)
    sentences = settings.scratch / "sentences.txt"
    if "gensim" in settings.contenders:
        write_sentences(tokens, vocabulary, sentences)
    print(f"{int(vocabulary.counts.sum()):,} words, {len(vocabulary):,} different")
    turns = itertools.product(
        settings.dims, range(1, settings.repeats + 1), settings.contenders
    )
    return [
        Job(contender, dim, repeat, str(source), str(sentences), settings)
        for dim, repeat, contender in turns
    ]


def report(settings: Settings, found: dict[Job, dict[str, float]]) -> None:
    """Write the record and print it as a table."""
    runs = [
        {"contender": job.contender, "dim": job.dim, "repeat": job.repeat, **result}
        for job, result in found.items()
    ]
    config = dataclasses.asdict(next(iter(found)).config)
    for key in ("dim", "seed"):
        del config[key]
    chosen = dataclasses.asdict(settings)
    for key in ("scratch", "name", "resume"):
        del chosen[key]
    options = [option for option in sys.argv[1:] if option != "--resume"]
    path = write_record(
        settings.record_name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/word2vec.py", *options]),
        config=config | chosen | {"runs": runs},
        metrics=medians(found),
        packages=["gensim", "numpy"],
        folder=settings.record_folder,
    )
    rows = [f"{c}_d{dim}" for dim in settings.dims for c in settings.contenders]
    record = read_record(path)
    print(f"\n{markdown_table([record], TABLE, rows)}\n")
    for name, value in record["metrics"].items():
        if "ratio" in name:
            print(f"{name}: {value:.2f}")
    print(f"Record: {path}")


def main(settings: Settings) -> None:
    """Measure and report, where there is something to measure on."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch sees no CUDA device here")
    else:
        report(settings, results(prepare(settings), settings.resume))


if __name__ == "__main__":
    sys.exit(ask(Settings, main, __doc__, GO_ON))
