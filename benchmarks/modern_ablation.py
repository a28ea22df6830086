"""Chapter 5's changes, one at a time: in chapter 4's translator, or in a decoder alone.

And, as `--task recipe`, chapter 4's own choices.

The baseline is chapter 4's Transformer, `tiny` unless another preset is given. Each
variant makes one change that chapter 5 explains, and leaves all else: data, subwords,
order of the batches, updates, learning rate. Where a change allows it the number of
weights stays too: a gate has a third matrix, so its network is two thirds as wide.
Shared keys and values and missing biases save weights, and nothing is given back for
them. The last variant has all changes together.

`--task translation` trains on Multi30k. Reported are the validation loss of the last
weights, in nats a subword, and the BLEU of greedy translations of the test set,
lower-cased. `--task language` has the same layers without an encoder read Shakespeare,
in rows of `--length` tokens, and reports that loss and bits a byte of the end of the
text. Its sinusoids are made as small as its words are at first, or nothing is learned.

Each is trained from several seeds, which draw the first values and the order of the
batches. How far the baseline's own results lie apart is the noise floor: a change that
moves the mean by less has shown nothing.

It is a short race, once or twice through the text: nothing can be learned by heart, so
nothing is dropped out. One learning rate serves all, that of chapter 4's recipe, and no
variant was tuned.

`--task recipe` asks what chapter 4's choices add. The baseline has the norm before the
sublayers and smooths its labels; one variant has the norm after the sums, one does not
smooth. Of each the last weights and the mean of five checkpoints translate, greedily
and with a beam of five.

    python benchmarks/modern_ablation.py --threads 1    # an hour of a core by itself
    python benchmarks/modern_ablation.py --task language --threads 1
    python benchmarks/modern_ablation.py --task recipe --threads 1
    python benchmarks/modern_ablation.py --only rope --seed 1       # one cell
    python benchmarks/modern_ablation.py --data little --pair en-fr --updates 9  # trial

Each finished cell is kept in --scratch, and so is the checkpoint of an unfinished one:
the same command goes on where it was interrupted. When all cells are there the record
is written.
"""

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from asked import ask
from cells import Cell as AnyCell
from cells import Found, fill, summary

from annotated.data import DataError
from annotated.decoding import beam_search, greedy
from annotated.language import bits_per_byte
from annotated.modern import LanguageModel
from annotated.parallel import languages, parallel_lines
from annotated.records import markdown_table, read_record, write_record
from annotated.subwords import Subwords
from annotated.tokens import Packed, documents, split_documents, text_path
from annotated.training import Recipe, evaluate, put, read_tensors
from annotated.transformer import PRESETS, Config, Transformer
from annotated.translation import (
    Lines,
    Train,
    Translator,
    as_modern,
    batches_of,
    gated_width,
    learn_vocabularies,
    score_split,
    split_names,
)

BASELINE, TOGETHER = "chapter4", "all"
CHANGES: dict[str, dict[str, Any]] = {
    "rms_norm": {"rms": True},
    "pre_norm": {"norm": "pre"},
    "rope": {"rope": 10_000.0, "positions": "none"},
    "swiglu": {"gate": "silu"},
    "grouped_query": {"kv_heads": 2},
    "no_biases": {"bias": False},
}
NAMES = [BASELINE, *CHANGES, TOGETHER]
CHOICES: dict[str, dict[str, Any]] = {
    "chosen": {},
    "post_norm": {"norm": "post"},
    "no_smoothing": {"smoothing": 0.0},
}
SEARCHES = {"greedy": greedy, "beam": beam_search}
MEASURED = {
    "translation": ("validation_loss", "bleu_tok_lc"),
    "language": ("validation_loss", "bits_per_byte"),
    "recipe": (
        "validation_loss",
        "bleu_greedy_last",
        "bleu_beam_last",
        "bleu_greedy_mean",
        "bleu_beam_mean",
    ),
}
TITLES = {
    "validation_loss": ("validation loss", ".3f"),
    "bleu_tok_lc": ("BLEU, lower case", ".1f"),
    "bits_per_byte": ("bits a byte", ".3f"),
    "bleu_greedy_last": ("BLEU, greedy", ".1f"),
    "bleu_beam_last": ("beam of 5", ".1f"),
    "bleu_greedy_mean": ("mean of 5, greedy", ".1f"),
    "bleu_beam_mean": ("mean, beam", ".1f"),
    "parameters": ("parameters", ",.0f"),
    "seconds": ("seconds", ",.0f"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "translation": {
        "data": "multi30k",
        "vocabulary": 4000,
        "updates": 1000,
        "tokens": 512,
        "name": "modern-ablation-multi30k",
    },
    "language": {
        "data": "shakespeare",
        "vocabulary": 2048,
        "updates": 600,
        "tokens": 1024,
        "name": "modern-ablation-shakespeare",
    },
    "recipe": {
        "data": "multi30k",
        "vocabulary": 4000,
        "updates": 1500,
        "tokens": 1024,
        "name": "recipe-ablation-multi30k",
    },
}


@dataclass(frozen=True)
class Settings:
    """Make chapter 5's changes one at a time in chapter 4's Transformer."""

    task: Literal["translation", "language", "recipe"] = "translation"
    """A translator, a language model of the same layers, or chapter 4's choices."""
    data: str | None = None
    """multi30k, tatoeba, little or a folder; for a language shakespeare or a file."""
    pair: str = "en-de"
    """Source and target language of a translator."""
    length: int = 128
    """Tokens of a row of a language model."""
    preset: str = "tiny"
    """Chapter 4's model that is changed."""
    dropout: float = 0.0
    """Of all variants."""
    vocabulary: int | None = None
    """Subwords: 4,000 of both languages together, 2,048 of one."""
    updates: int | None = None
    """Of each cell: 1,000, for a language model 600, for chapter 4's choices 1,500."""
    tokens: int | None = None
    """Positions of a batch: 512 for chapter 5's changes in a translator, else 1,024."""
    learning_rate: float = 2e-3
    """At its peak, after a fifth of the updates; from there linear to zero."""
    seeds: int = 3
    """Trainings of each variant, with the seeds 0, 1 and so on."""
    sentences: int = 0
    """Translate and validate on the first so many sentences; 0 for all."""
    only: str | None = None
    """The one variant to train now."""
    seed: int | None = None
    """The one seed to train with now."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    name: str | None = None
    """The record's name, else the task's."""
    scratch: Path | None = None
    """Folder for finished cells, checkpoints, and a trial's record: runs/NAME."""

    @property
    def whole(self) -> "Settings":
        """With the task's values where none was given."""
        usual = DEFAULTS[self.task].items()
        filled = {k: v for k, v in usual if getattr(self, k) is None}
        made = dataclasses.replace(self, **filled)
        scratch = made.scratch or Path("runs") / str(made.name)
        return dataclasses.replace(made, scratch=scratch)

    @property
    def measured(self) -> bool:
        """Whether this is the whole measurement, and no trial."""
        free = {"only", "seed", "threads", "name", "scratch"}
        usual = dataclasses.asdict(Settings(self.task).whole)
        mine = dataclasses.asdict(self)
        return all(mine[key] == usual[key] for key in mine.keys() - free)

    @property
    def recipe(self) -> Recipe:
        """How each cell is trained, but for its seed."""
        updates, rate = int(self.updates or 0), self.learning_rate
        warmup, smoothing = updates // 5, 0.1 * (self.task != "language")
        recipe = Recipe(updates, rate, "linear", warmup, smoothing=smoothing)
        if self.task == "recipe":  # five checkpoints of the last fifth
            recipe = dataclasses.replace(
                recipe, average=5, validate_every=max(1, updates // 25)
            )
        return dataclasses.replace(recipe, precision="bf16")

    @property
    def names(self) -> list[str]:
        """The variants, the baseline first."""
        return [*CHOICES] if self.task == "recipe" else NAMES


def check_settings(settings: Settings) -> None:
    """Refuse what has no meaning, by the option's name."""
    if settings.preset not in PRESETS:
        raise DataError(
            f"--preset {settings.preset}: chapter 4 has {', '.join(PRESETS)}; "
            "choose one"
        )
    if settings.only not in (None, *settings.names):
        names = ", ".join(settings.names)
        raise DataError(f"--only {settings.only}: there are {names}; choose one")
    if settings.seeds < 2:
        raise DataError(
            f"--seeds {settings.seeds}: give 2 or more; from one nobody can tell a "
            "change from chance"
        )
    if settings.seed is not None and not 0 <= settings.seed < settings.seeds:
        raise DataError(f"--seed {settings.seed}: give 0 to {settings.seeds - 1}")
    if min(settings.sentences, settings.threads - 1) < 0:
        raise DataError("--sentences: give 0 or more; --threads: 1 or more")


def variants(base: Config) -> dict[str, Config]:
    """The baseline, chapter 5's config with one change each, and with all of them."""
    off = as_modern(base)
    narrow = {"d_ff": gated_width(off, CHANGES["swiglu"]["gate"])}
    changes = CHANGES | {"swiglu": CHANGES["swiglu"] | narrow}
    changes[TOGETHER] = {k: v for change in changes.values() for k, v in change.items()}
    made = {name: dataclasses.replace(off, **more) for name, more in changes.items()}
    return {BASELINE: base, **made}


@dataclass(frozen=True)
class Cell(AnyCell):
    """One entry of the table: a variant and a seed."""

    settings: Settings
    name: str
    seed: int

    @property
    def config(self) -> Config:
        """The model."""
        preset = PRESETS[self.settings.preset]
        base = dataclasses.replace(preset, dropout=self.settings.dropout)
        if self.settings.task == "recipe":
            return dataclasses.replace(base, norm=self.choice.get("norm", "pre"))
        return variants(base)[self.name]

    @property
    def choice(self) -> dict[str, Any]:
        """What one of chapter 4's choices is changed to."""
        return CHOICES.get(self.name, {})

    @property
    def recipe(self) -> Recipe:
        """The training."""
        usual = self.settings.recipe
        smoothing = self.choice.get("smoothing", usual.smoothing)
        return dataclasses.replace(usual, seed=self.seed, smoothing=smoothing)

    @property
    def scratch(self) -> Path:
        """Where the table is kept while it is filled."""
        return Path(str(self.settings.scratch))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        chosen = ["data", "vocabulary", "tokens"]
        language = self.settings.task == "language"
        chosen += ["length"] if language else ["pair", "sentences"]
        return {key: getattr(self.settings, key) for key in chosen} | {
            "model": dataclasses.asdict(self.config),
            "recipe": dataclasses.asdict(self.recipe),
        }


class Translation:
    """Pairs of sentences, read when the first cell needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.options = Train(
            "transformer",
            settings.recipe,
            data=str(settings.data),
            pair=settings.pair,
            vocabulary=int(settings.vocabulary or 0),
            tokens=int(settings.tokens or 0),
        )

    @cached_property
    def lines(self) -> list[Lines]:
        """Training, validation and test; of the last two as many as asked for."""
        names, few = split_names(self.options.data), self.settings.sentences or None
        first, *others = (
            parallel_lines(self.options.data, self.settings.pair, name)
            for name in names
        )
        return [first, *((one[:few], other[:few]) for one, other in others)]

    @cached_property
    def subwords(self) -> Any:
        """One vocabulary for both sides."""
        return learn_vocabularies(self.options, self.lines[0])[0]

    def result(self, cell: Cell) -> dict[str, Any]:
        """Train one cell and measure it."""
        words, (learned, held_out, _) = self.subwords, self.lines
        torch.manual_seed(cell.seed)
        model = Transformer(cell.config, len(words))
        translator = Translator(model, words, words)
        options = dataclasses.replace(self.options, recipe=cell.recipe)
        seconds = cell.train(model, batches_of(options, learned, translator))
        found = evaluate(model, batches_of(options, held_out, translator))
        return {
            "validation_loss": found["validation_loss"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": seconds,
            "vocabulary": len(words),
        } | self.scores(cell, translator)

    def bleu(self, translator: Translator, search: str) -> tuple[float, str]:
        """BLEU of the test split in small letters, and how it was counted."""
        scores, signatures, _ = score_split(
            translator,
            self.lines[2],
            languages(self.settings.pair)[1],
            search=SEARCHES[search],
            progress=False,
        )
        return scores["bleu_tok_lc"], signatures["bleu_tok_lc"]

    def scores(self, cell: Cell, translator: Translator) -> dict[str, Any]:
        """What the test split says of the trained model."""
        score, signature = self.bleu(translator, "greedy")
        return {"bleu_tok_lc": score, "signature": signature}


class Choices(Translation):
    """The same pairs, and of each cell four ways to translate."""

    def scores(self, cell: Cell, translator: Translator) -> dict[str, Any]:
        """Of the mean of the checkpoints, and of the last; greedy, and with a beam."""
        tensors, _ = read_tensors(cell.folder / "last.safetensors")
        last = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        found: dict[str, Any] = {}
        for which in ("mean", "last"):
            if which == "last":
                put(last, translator.model.state_dict())
            for search in SEARCHES:
                score, signature = self.bleu(translator, search)
                found |= {f"bleu_{search}_{which}": score, "signature": signature}
        return found


class Language:
    """A text, read when the first cell needs it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def text(self) -> dict[str, str]:
        """The text of each split."""
        path = text_path(str(self.settings.data), progress=False)
        found: dict[str, list[str]] = {}
        for split, part in split_documents(documents([path])):
            found.setdefault(split, []).append(part)
        return {split: "\n".join(parts) for split, parts in found.items()}

    @cached_property
    def subwords(self) -> Subwords:
        """Learned from the training split."""
        lines = self.text["train"].splitlines()
        size = int(self.settings.vocabulary or 0)
        return Subwords.learn(lines, size, progress=False)

    def rows(self, split: str, cell: Cell, shuffle: bool) -> Packed:
        """A split in rows."""
        ids = np.array(self.subwords.encode(self.text[split]))
        length, tokens = self.settings.length, int(self.settings.tokens or 0)
        return Packed(ids, length, tokens, cell.seed, shuffle)

    def result(self, cell: Cell) -> dict[str, Any]:
        """Train one cell and measure it."""
        torch.manual_seed(cell.seed)
        model = LanguageModel(as_modern(cell.config), len(self.subwords))
        if cell.config.positions == "sinusoids":  # as large as the words at first
            model.positions.table.mul_(0.02 * math.sqrt(2))
        seconds = cell.train(model, self.rows("train", cell, shuffle=True))
        unseen = self.rows("val", cell, shuffle=False)
        loss = evaluate(model, unseen)["validation_loss"]
        size = len(self.text["val"].encode())
        return {
            "validation_loss": loss,
            "bits_per_byte": bits_per_byte(loss * (len(unseen.ids) - 1), size),
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": seconds,
            "vocabulary": len(self.subwords),
        }


TASKS: dict[str, Any] = {
    "translation": Translation,
    "language": Language,
    "recipe": Choices,
}


def asked_for(settings: Settings) -> Iterator[Cell]:
    """The cells to train now: a seed of each variant, then the next seed."""
    for seed in range(settings.seeds):
        for name in settings.names:
            if settings.only in (None, name) and settings.seed in (None, seed):
                yield Cell(settings, name, seed)


def publish(settings: Settings, results: Found) -> Path:
    """Write the record of a table without holes."""
    chosen = dataclasses.asdict(settings)
    for key in ("name", "scratch", "only", "seed"):
        del chosen[key]
    models = {name: Cell(settings, name, 0).config for name in settings.names}
    first = results[settings.names[0]][0]
    about: dict[str, Any] = {"vocabulary": first["vocabulary"]}
    if settings.task != "language":
        about |= {
            "splits": split_names(str(settings.data)),
            "signature": first["signature"],
        }
    if settings.task == "translation":
        about["search"] = "greedy"
    return write_record(
        str(settings.name),
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/modern_ablation.py", *sys.argv[1:]]),
        config=chosen
        | {
            "models": {name: dataclasses.asdict(c) for name, c in models.items()},
            "recipe": dataclasses.asdict(settings.recipe),
            "load": os.getloadavg()[0],
        }
        | about,
        metrics=summary(results, MEASURED[settings.task]),
        packages=("sacrebleu", "tokenizers"),
        folder=None if settings.measured else settings.scratch,
    )


def report(settings: Settings) -> None:
    """Train the cells that are missing; with all of them there, write the record."""
    settings = settings.whole
    check_settings(settings)
    torch.set_num_threads(settings.threads)
    task = TASKS[settings.task](settings)
    whole = list(asked_for(dataclasses.replace(settings, only=None, seed=None)))
    found = fill(whole, list(asked_for(settings)), task.result)
    if not found:
        return
    path = publish(settings, found)
    metrics = read_record(path)["metrics"]
    columns = {"": "*"} | {
        TITLES[kind][0]: f"{{metrics[{kind}_*]:{TITLES[kind][1]}}}"
        for kind in (*MEASURED[settings.task], "parameters", "seconds")
    }
    print(f"\n{markdown_table([read_record(path)], columns, settings.names)}\n")
    for kind in MEASURED[settings.task]:
        print(f"noise floor of {kind}: {metrics[f'noise_{kind}']:.3f}")
    print(f"Record: {path}")


if __name__ == "__main__":
    again = "finished cells are kept: the same command goes on"
    sys.exit(ask(Settings, report, __doc__, again))
