"""The model and the data of all these runs, here and in torchrun's processes."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from annotated.modern import Config, LanguageModel
from annotated.parallel import Batch
from annotated.training import Recipe, train

VOCAB = 31  # odd: two processes have no equal slices of the table
STEADY: dict[str, Any] = {"schedule": "constant", "warmup": 0, "learning_rate": 1e-2}
ALL: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 0.1, "clip": 0.3} | STEADY


def fresh(width: int = 24, double: bool = True) -> LanguageModel:
    """A small language model, the same one each time; in 32 bits its gains are ones."""
    torch.manual_seed(5)
    model = LanguageModel(Config(2, width, 40, 4, kv_heads=2), VOCAB)
    if not double:
        return model
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model.double()


class Rows:
    """Batches of two to four rows of random words, the same in each epoch."""

    def __init__(self, count: int, seed: int = 0) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.batches = []
        for number in range(count):
            size = 2 + number % 3, 9 - number % 2
            ids = torch.randint(3, VOCAB, size, generator=chance)
            parts = ids[:, :0], ids[:, 0], ids[:, :-1], ids[:, 1:]
            self.batches.append(Batch(*parts))

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches from the start-th on."""
        return iter(self.batches[start:])


class Before:
    """Batches with an event before one of them, counted over all epochs."""

    def __init__(self, batches: Rows, number: int, event: Callable[[], None]) -> None:
        self.batches, self.left, self.event = batches, number, event

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches."""
        for batch in self.batches.epoch(n, start):
            if not self.left:
                self.event()
            self.left -= 1
            yield batch


TRAIN, VALIDATION = Rows(12), Rows(5, seed=1)  # five: not to be shared evenly
RECIPES: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9, "validate_every": 2},
    "average": {"average": 2, "validate_every": 1},
    "plain": {},
}


def options(name: str, accumulate: int) -> dict[str, Any]:
    """Recipe and validation of a run: six updates of so many batches a process."""
    recipe = Recipe(6, accumulate=accumulate, **ALL | RECIPES[name])
    validation = VALIDATION if recipe.validate_every else None
    return {"recipe": recipe, "validation": validation, "progress": False}


def alone(batches: Any = TRAIN, **given: Any) -> LanguageModel:
    """A run on one process: the model afterwards."""
    model = given.pop("model", None) or fresh()
    train(model, batches, **given)
    return model


@pytest.fixture(scope="session")
def common() -> SimpleNamespace:
    """All of this, for the tests."""
    return SimpleNamespace(**globals())


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread."""
