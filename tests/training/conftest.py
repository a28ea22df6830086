"""A small model with data for all tests of training."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from annotated.parallel import Batch, Batches, make_batch
from annotated.subwords import PAD
from annotated.transformer import Config, Transformer


class Relay(nn.Module):
    """Reads the source through attention by position; dropout makes it random."""

    def __init__(
        self, width: int = 16, dropout: float = 0.1, tied: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, width)
        self.ask, self.answer = nn.Embedding(12, width), nn.Embedding(12, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 12)
        if tied:
            self.output.weight = self.embedding.weight

    def features(self, batch: Batch) -> Tensor:
        """What is known at each target position."""
        device = batch.source.device
        ask = self.ask(torch.arange(batch.target_in.shape[1], device=device))
        answer = self.answer(torch.arange(batch.source.shape[1], device=device))
        score = (ask @ answer.T).masked_fill((batch.source == PAD)[:, None], -torch.inf)
        return self.dropout(score.softmax(-1) @ self.embedding(batch.source))


class Listed:
    """The same list of batches in each epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches from the start-th on."""
        return iter(self.batches[start:])


def with_table() -> Transformer:
    """A model whose table of positions, eight at first, grows with its texts."""
    torch.manual_seed(5)
    return Transformer(Config(1, 16, 16, 2, dropout=0.0, longest=8), 12).double()


def short_and_long() -> Listed:
    """Batches in turn, so that only the first process meets the long texts."""
    texts = [[[6, 7] * 10], [[3, 4, 5]] * 2, [[10, 11] * 30], [[8, 9]] * 3] * 2
    return Listed([make_batch(rows, rows) for rows in texts])


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread."""


@pytest.fixture(scope="session")
def fresh() -> Callable[..., Relay]:
    """A new model, the same one for the same options."""

    def make(**options: float) -> Relay:
        torch.manual_seed(5)
        return Relay(**options)  # type: ignore[arg-type]

    return make


def some_rows() -> list[list[int]]:
    """A hundred and twenty rows of two to eight ids."""
    chance = random.Random(0)
    return [
        [chance.randrange(3, 12) for _ in range(chance.randint(2, 8))]
        for _ in range(120)
    ]


def cut(*cuts: int) -> list[Batch]:
    """Batches of the rows between the given numbers."""
    rows = some_rows()
    return [make_batch(rows[a:b], rows[a:b]) for a, b in itertools.pairwise(cuts)]


@pytest.fixture(scope="session")
def rows() -> list[list[int]]:
    """The rows that all tests have."""
    return some_rows()


@pytest.fixture(scope="session")
def batches(rows: list[list[int]]) -> Batches:
    """A hundred of them to learn, copies of themselves."""
    return Batches(rows[:100], rows[:100], tokens=60)


@pytest.fixture(scope="session")
def validation(rows: list[list[int]]) -> Batches:
    """The other twenty."""
    return Batches(rows[100:], rows[100:], tokens=100, shuffle=False)


@pytest.fixture(scope="session")
def listed() -> Callable[..., Listed]:
    """Batches of the rows between the given numbers, the same in each epoch."""
    return lambda *cuts: Listed(cut(*cuts))


@pytest.fixture
def growing() -> tuple[Transformer, Listed]:
    """A model whose table grows, and the texts that make it."""
    return with_table(), short_and_long()
