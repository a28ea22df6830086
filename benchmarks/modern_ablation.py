"""Chapter 5's changes in chapter 4's translator, one at a time, on Multi30k.

The baseline is chapter 4's Transformer, `tiny` unless another preset is given. Each
variant makes one change that chapter 5 explains, and leaves all else: data, subwords,
order of the batches, updates, learning rate. Where a change allows it the number of
weights stays too: a gate has a third matrix, so its network is two thirds as wide.
Shared keys and values and missing biases save weights, and nothing is given back for
them. The last variant has all changes together.

Each is trained from several seeds, which draw the first values and the order of the
batches. Reported are the validation loss of the last weights, in nats a subword, and
the BLEU of greedy translations of the test set, lower-cased. How far the baseline's own
results lie apart is the noise floor: a change that moves the mean by less has shown
nothing.

It is a short race, once through the text: nothing can be learned by heart, so nothing
is dropped out. One learning rate serves all, that of chapter 4's recipe, and no variant
was tuned.

    python benchmarks/modern_ablation.py --threads 1    # an hour of a core by itself
    python benchmarks/modern_ablation.py --only rope --seed 1       # one cell
    python benchmarks/modern_ablation.py --data little --pair en-fr --updates 9  # trial

Each finished cell is kept in --scratch, and so is the checkpoint of an unfinished one:
the same command goes on where it was interrupted. When all cells are there the record
is written.
"""

import dataclasses
import json
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from asked import ask
from tqdm import tqdm

from annotated.data import DataError, replacing
from annotated.decoding import greedy
from annotated.parallel import languages, parallel_lines
from annotated.records import markdown_table, read_record, write_record
from annotated.training import Recipe, evaluate, train
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
MEASURED = ("validation_loss", "bleu_tok_lc")
TABLE = {
    "": "*",
    "validation loss": "{metrics[validation_loss_*]:.3f}",
    "BLEU, lower case": "{metrics[bleu_tok_lc_*]:.1f}",
    "parameters": "{metrics[parameters_*]:,.0f}",
    "seconds": "{metrics[seconds_*]:,.0f}",
}


@dataclass(frozen=True)
class Settings:
    """Make chapter 5's changes one at a time in chapter 4's Transformer."""

    data: str = "multi30k"
    """multi30k, tatoeba, little, or a folder with train.en, val.en, test.en."""
    pair: str = "en-de"
    """Source and target language."""
    preset: str = "tiny"
    """Chapter 4's model that is changed."""
    dropout: float = 0.0
    """Of all variants."""
    vocabulary: int = 4000
    """Subwords of both languages together."""
    updates: int = 1000
    """Of each cell of the table."""
    tokens: int = 512
    """Positions of a batch."""
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
    name: str = "modern-ablation-multi30k"
    """The record's name."""
    scratch: Path = Path("runs/modern-ablation")
    """Folder for finished cells, checkpoints, and the record of a trial."""

    @property
    def measured(self) -> bool:
        """Whether this is the whole measurement, and no trial."""
        free = {"only", "seed", "threads", "name", "scratch"}
        fixed = [field for field in dataclasses.fields(self) if field.name not in free]
        return all(getattr(self, field.name) == field.default for field in fixed)

    @property
    def recipe(self) -> Recipe:
        """How each cell is trained, but for its seed."""
        warmup = self.updates // 5
        rate = self.learning_rate
        return Recipe(self.updates, rate, "linear", warmup=warmup, precision="bf16")


def check_settings(settings: Settings) -> None:
    """Refuse what has no meaning, by the option's name."""
    if settings.preset not in PRESETS:
        raise DataError(
            f"--preset {settings.preset}: chapter 4 has {', '.join(PRESETS)}; "
            "choose one"
        )
    if settings.only not in (None, *NAMES):
        raise DataError(
            f"--only {settings.only}: there are {', '.join(NAMES)}; choose one"
        )
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
class Cell:
    """One entry of the table: a variant and a seed."""

    settings: Settings
    name: str
    seed: int

    @property
    def config(self) -> Config:
        """The model."""
        preset = PRESETS[self.settings.preset]
        return variants(dataclasses.replace(preset, dropout=self.settings.dropout))[
            self.name
        ]

    @property
    def recipe(self) -> Recipe:
        """The training."""
        return dataclasses.replace(self.settings.recipe, seed=self.seed)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result."""
        chosen = ("data", "pair", "vocabulary", "tokens", "sentences")
        return {key: getattr(self.settings, key) for key in chosen} | {
            "model": dataclasses.asdict(self.config),
            "recipe": dataclasses.asdict(self.recipe),
        }

    @property
    def folder(self) -> Path:
        """Where its checkpoint is while it trains."""
        return self.settings.scratch / f"{self.name}-{self.seed}"

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        return self.folder.with_name(self.folder.name + ".json")

    def result(self) -> dict[str, Any] | None:
        """What an earlier call found, if it did; of other settings is a DataError."""
        if not self.path.is_file():
            return None
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            same = kept["identity"] == json.loads(json.dumps(self.identity))
            found: dict[str, Any] = kept["result"]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.path}: holds no finished cell; remove it, to train it again"
            ) from None
        if not same:
            raise DataError(
                f"{self.path}: was made with other settings; give the same again, or "
                "another --scratch"
            )
        return found


class Corpus:
    """The three splits and the vocabulary, read when the first cell needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.options = Train(
            "transformer",
            settings.recipe,
            data=settings.data,
            pair=settings.pair,
            vocabulary=settings.vocabulary,
            tokens=settings.tokens,
        )

    @cached_property
    def lines(self) -> list[Lines]:
        """Training, validation and test; of the last two as many as asked for."""
        names, few = split_names(self.settings.data), self.settings.sentences or None
        first, *others = (
            parallel_lines(self.settings.data, self.settings.pair, name)
            for name in names
        )
        return [first, *((one[:few], other[:few]) for one, other in others)]

    @cached_property
    def subwords(self) -> Any:
        """One vocabulary for both sides."""
        return learn_vocabularies(self.options, self.lines[0])[0]


def carry_out(cell: Cell, corpus: Corpus) -> None:
    """Train one cell, or go on with it, and keep its result."""
    words, (learned, held_out, unseen) = corpus.subwords, corpus.lines
    torch.manual_seed(cell.seed)
    model = Transformer(cell.config, len(words))
    translator = Translator(model, words, words)
    options = dataclasses.replace(corpus.options, recipe=cell.recipe)
    batches = batches_of(options, learned, translator)
    history = train(
        model, batches, cell.recipe, folder=cell.folder, identity=cell.identity
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    model.eval()
    found = evaluate(model, batches_of(options, held_out, translator))
    language = languages(cell.settings.pair)[1]
    scores, signatures, _ = score_split(
        translator, unseen, language, search=greedy, progress=False
    )
    last = [row for row in history if "tokens" in row][-1]
    result = {
        "validation_loss": found["validation_loss"],
        "bleu_tok_lc": scores["bleu_tok_lc"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": last["seconds"],
        "vocabulary": len(words),
        "signature": signatures["bleu_tok_lc"],
    }
    with replacing(cell.path) as temporary:
        kept = {"identity": cell.identity, "result": result}
        temporary.write_text(json.dumps(kept, indent=2), encoding="utf-8")
    shutil.rmtree(cell.folder, ignore_errors=True)


def asked_for(settings: Settings) -> Iterator[Cell]:
    """The cells to train now: a seed of each variant, then the next seed."""
    for seed in range(settings.seeds):
        for name in NAMES:
            if settings.only in (None, name) and settings.seed in (None, seed):
                yield Cell(settings, name, seed)


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Means, each seed, and two measures of the noise.

    The noise floor is the standard deviation over the baseline's seeds. That of few
    seeds is itself uncertain, so there is another, pooled over all variants.
    """
    metrics: dict[str, float] = {}
    for kind in MEASURED:
        values = {name: [one[kind] for one in some] for name, some in results.items()}
        metrics[f"noise_{kind}"] = statistics.stdev(values[BASELINE])
        spreads = [statistics.variance(some) for some in values.values()]
        metrics[f"noise_{kind}_pooled"] = statistics.mean(spreads) ** 0.5
        for name, some in values.items():
            metrics[f"{kind}_{name}"] = statistics.mean(some)
            each = {f"{kind}_{name}_seed{n}": value for n, value in enumerate(some)}
            metrics |= each
    for name, found in results.items():
        metrics[f"parameters_{name}"] = found[0]["parameters"]
        metrics[f"seconds_{name}"] = statistics.mean(one["seconds"] for one in found)
    return metrics


def publish(settings: Settings, results: dict[str, list[dict[str, Any]]]) -> Path:
    """Write the record of a table without holes."""
    chosen = dataclasses.asdict(settings)
    for key in ("name", "scratch", "only", "seed"):
        del chosen[key]
    models = {name: Cell(settings, name, 0).config for name in NAMES}
    first = results[BASELINE][0]
    return write_record(
        settings.name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/modern_ablation.py", *sys.argv[1:]]),
        config=chosen
        | {
            "models": {name: dataclasses.asdict(c) for name, c in models.items()},
            "recipe": dataclasses.asdict(settings.recipe),
            "splits": split_names(settings.data),
            "vocabulary": first["vocabulary"],
            "search": "greedy",
            "signature": first["signature"],
            "load": os.getloadavg()[0],
        },
        metrics=summary(results),
        packages=("sacrebleu", "tokenizers"),
        folder=None if settings.measured else settings.scratch,
    )


def report(settings: Settings) -> None:
    """Train the cells that are missing; with all of them there, write the record."""
    check_settings(settings)
    torch.set_num_threads(settings.threads)
    corpus = Corpus(settings)
    missing = [cell for cell in asked_for(settings) if cell.result() is None]
    for cell in (bar := tqdm(missing, unit="cell")):
        bar.set_description(f"{cell.name}, seed {cell.seed}")
        carry_out(cell, corpus)
    whole = dataclasses.replace(settings, only=None, seed=None)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    cells = list(asked_for(whole))
    for cell in cells:
        if (result := cell.result()) is not None:
            found[cell.name].append(result)
    done = sum(map(len, found.values()))
    if done < len(cells):
        print(f"{done} of {len(cells)} cells are there: no record before the last")
        return
    path = publish(settings, found)
    metrics = read_record(path)["metrics"]
    print(f"\n{markdown_table([read_record(path)], TABLE, NAMES)}\n")
    for kind in MEASURED:
        print(f"noise floor of {kind}: {metrics[f'noise_{kind}']:.3f}")
    print(f"Record: {path}")


if __name__ == "__main__":
    again = "finished cells are kept: the same command goes on"
    sys.exit(ask(Settings, report, __doc__, again))
