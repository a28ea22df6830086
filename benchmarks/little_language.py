"""One language, three models: what chapters 2, 3 and 4 train live, side by side.

The models are those of the chapters: a sentence in one vector, attention over a
recurrent encoder, attention alone. Each is trained on English-French pairs of the
little language with the settings of its chapter, which differ in pairs and updates and
are in the record; chapter 3's model without dropout and without the words that it reads
out from the context alone, which make its looks better and its learning slower. Then it
translates three test sets greedily: sentences like the trained ones, longer ones, and
words in combinations that were never seen. A sentence counts if every word is right.
Chapter 4 draws the result.

    python benchmarks/little_language.py            # some minutes
    python benchmarks/little_language.py --updates 20 --sentences 50    # a trial
"""

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from asked import ask
from torch import nn

from annotated import attention, seq2seq, transformer
from annotated.decoding import greedy, search_all
from annotated.little_language import Pair, little_splits
from annotated.parallel import Batches
from annotated.records import markdown_table, read_record, write_record
from annotated.subwords import Words
from annotated.training import Recipe, train

TESTS = ("random", "longer", "unseen")
TABLE = {
    "": "*",
    "random": "{metrics[exact_random_*]:.1%}",
    "longer": "{metrics[exact_longer_*]:.1%}",
    "unseen": "{metrics[exact_unseen_*]:.1%}",
    "parameters": "{metrics[parameters_*]:,.0f}",
    "seconds": "{metrics[seconds_*]:,.0f}",
}


@dataclass(frozen=True)
class Settings:
    """Train the models of chapters 2, 3 and 4 on the little language."""

    sentences: int = 1000
    """Sentences of each test set."""
    updates: int = 0
    """Train each model for so many updates; 0 for as many as its chapter does."""
    seed: int = 0
    """Of the weights and the order of batches; the data are always the same."""
    threads: int = len(os.sched_getaffinity(0))
    """Of the training."""
    name: str = "little-language"
    """The record's name."""
    scratch: Path = Path("runs/little-language")
    """Folder for the record of a trial."""

    @property
    def measured(self) -> bool:
        """Whether this is the whole measurement, and no trial."""
        return self.sentences >= 1000 and not self.updates


@dataclass(frozen=True)
class Entry:
    """A model, how it is trained, and on how many pairs."""

    config: Any
    build: Callable[[Any, int, int], nn.Module]
    recipe: Recipe
    pairs: int
    tokens: int = 1024
    """Positions of a batch."""
    joint: bool = False
    """One vocabulary for both languages."""


ENTRIES = {
    "one_vector": Entry(
        seq2seq.Config("gru", 64, 128, layers=1, reverse=True, feed=True, dropout=0.0),
        seq2seq.Seq2Seq,
        Recipe(900, 5e-3, "linear", warmup=50, smoothing=0.0),
        pairs=20_000,
    ),
    "attention": Entry(
        attention.Config(d_embedding=64, d_hidden=96, d_readout=64, dropout=0.0),
        attention.Bahdanau,
        Recipe(3600, 5e-3, "linear", warmup=50, smoothing=0.0, ema=0.98),
        pairs=50_000,
        tokens=512,
    ),
    "transformer": Entry(
        transformer.Config(3, 96, 192, 4, 0.0, norm="pre"),
        lambda config, _, vocab: transformer.Transformer(config, vocab),
        Recipe(5000, 2e-3, "linear", warmup=200, smoothing=0.0, ema=0.99),
        pairs=50_000,
        tokens=512,
        joint=True,
    ),
}


def vocabularies(entry: Entry, pairs: list[Pair]) -> tuple[Words, Words]:
    """The words of each language, or twice those of both."""
    sides = ([p.source for p in pairs], [p.target for p in pairs])
    if entry.joint:
        both = Words.learn([*sides[0], *sides[1]])
        return both, both
    return Words.learn(sides[0]), Words.learn(sides[1])


def run(name: str, settings: Settings) -> dict[str, float]:
    """Train one model and examine it."""
    entry = ENTRIES[name]
    updates = settings.updates or entry.recipe.updates
    recipe = replace(entry.recipe, seed=settings.seed, updates=updates)
    splits = little_splits("fr", train=entry.pairs)
    source, target = vocabularies(entry, splits["train"])

    ids = (
        source.encode_all(p.source for p in splits["train"]),
        target.encode_all(p.target for p in splits["train"]),
    )
    batches = Batches(*ids, tokens=entry.tokens, seed=settings.seed)
    torch.manual_seed(settings.seed)
    model = entry.build(entry.config, len(source), len(target))
    if isinstance(model, attention.Bahdanau):  # s_0 says nothing, as in chapter 3
        nn.init.zeros_(model.first.weight).requires_grad_(False)
    began = time.perf_counter()
    train(model, batches, recipe)
    metrics = {
        f"seconds_{name}": time.perf_counter() - began,
        f"parameters_{name}": sum(p.numel() for p in model.parameters()),
        f"updates_{name}": updates,
        f"pairs_{name}": entry.pairs,
    }
    for test in TESTS:
        asked = splits[test][: settings.sentences]
        sources = source.encode_all(p.source for p in asked)
        found = search_all(model, sources, search=greedy, progress=False)
        answers = [target.decode(best.ids) for best, *_ in found]
        right = [a == p.target for a, p in zip(answers, asked, strict=True)]
        metrics[f"exact_{test}_{name}"] = sum(right) / len(right)
    return metrics


def described(entry: Entry) -> dict[str, Any]:
    """A model's settings for the record."""
    return {
        "model": dataclasses.asdict(entry.config),
        "recipe": dataclasses.asdict(entry.recipe),
        "pairs": entry.pairs,
        "joint_vocabulary": entry.joint,
        "tokens": entry.tokens,
    }


def report(settings: Settings) -> None:
    """Measure, write the record and print it as a table."""
    torch.set_num_threads(settings.threads)
    load = os.getloadavg()[0]
    metrics: dict[str, float] = {}
    for name in ENTRIES:
        print(name, flush=True)
        metrics |= run(name, settings)
    chosen = dataclasses.asdict(settings)
    for key in ("name", "scratch"):
        del chosen[key]
    about = {name: described(entry) for name, entry in ENTRIES.items()}
    path = write_record(
        settings.name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/little_language.py", *sys.argv[1:]]),
        config=chosen | {"language": "en-fr", "load_before": load} | about,
        metrics=metrics,
        folder=None if settings.measured else settings.scratch,
    )
    print(f"\n{markdown_table([read_record(path)], TABLE, list(ENTRIES))}\n")
    print(f"Record: {path}")


if __name__ == "__main__":
    sys.exit(ask(Settings, report, __doc__))
