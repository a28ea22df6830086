"""A table of trainings, some variants by some seeds, that is filled cell by cell.

Each finished cell is kept in a folder, and so is the checkpoint of an unfinished one:
the same command goes on where it was interrupted.
"""

import json
import shutil
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from annotated.data import DataError, replacing
from annotated.training import Recipe, train

Result = dict[str, Any]
Found = dict[str, list[Result]]


class Cell(ABC):
    """One entry of the table: a variant and a seed."""

    name: str
    seed: int

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """Where the table is kept while it is filled."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The training."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the result."""

    @property
    def folder(self) -> Path:
        """Where its checkpoint is while it trains."""
        return self.scratch / f"{self.name}-{self.seed}"

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        return self.folder.with_name(self.folder.name + ".json")

    def result(self) -> Result | None:
        """What an earlier call found, if it did; of other settings is a DataError."""
        if not self.path.is_file():
            return None
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            same = kept["identity"] == json.loads(json.dumps(self.identity))
            found: Result = kept["result"]
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

    def train(self, model: Any, batches: Any) -> float:
        """Train a model, or go on with it; the seconds of all its updates."""
        history = train(
            model, batches, self.recipe, folder=self.folder, identity=self.identity
        )
        if history.stopped == "interrupted":
            raise KeyboardInterrupt
        model.eval()
        return float([row for row in history if "tokens" in row][-1]["seconds"])

    def keep(self, result: Result) -> None:
        """Write its result, and remove its checkpoint."""
        kept = {"identity": self.identity, "result": result}
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(kept, indent=2), encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)


Some = TypeVar("Some", bound=Cell)


def fill(
    whole: Sequence[Some], asked: Sequence[Some], measure: Callable[[Some], Result]
) -> Found:
    """Train the asked-for cells that are missing; all results, if none is missing now.

    Of a table with holes it says how many cells are there, and gives {}.
    """
    missing = [cell for cell in asked if cell.result() is None]
    for cell in (bar := tqdm(missing, unit="cell")):
        bar.set_description(f"{cell.name}, seed {cell.seed}")
        cell.keep(measure(cell))
    found: Found = {}
    for cell in whole:
        if (result := cell.result()) is not None:
            found.setdefault(cell.name, []).append(result)
    done = sum(map(len, found.values()))
    if done == len(whole):
        return found
    print(f"{done} of {len(whole)} cells are there: no record before the last")
    return {}


def summary(found: Found, measured: Sequence[str]) -> dict[str, float]:
    """Means, each seed, and two measures of the noise.

    The noise floor is the standard deviation over the seeds of the first variant, the
    baseline. That of few seeds is itself uncertain, so there is another, pooled over
    all variants.
    """
    metrics: dict[str, float] = {}
    for kind in measured:
        values = {name: [one[kind] for one in some] for name, some in found.items()}
        spreads = [statistics.variance(some) for some in values.values()]
        metrics[f"noise_{kind}"] = spreads[0] ** 0.5
        metrics[f"noise_{kind}_pooled"] = statistics.mean(spreads) ** 0.5
        for name, some in values.items():
            metrics[f"{kind}_{name}"] = statistics.mean(some)
            each = {f"{kind}_{name}_seed{n}": value for n, value in enumerate(some)}
            metrics |= each
    for name, some in found.items():
        metrics[f"parameters_{name}"] = some[0]["parameters"]
        metrics[f"seconds_{name}"] = statistics.mean(one["seconds"] for one in some)
    return metrics
