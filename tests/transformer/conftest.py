"""Tiny Transformers in double precision, and batches for them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from annotated.parallel import Batch, make_batch
from annotated.transformer import Config, Transformer

SMALL = Config(layers=2, d_model=8, d_ff=12, heads=2, dropout=0.0)
VOCAB = 14
SOURCES = [[5, 6, 7, 8, 9], [4], [6, 5, 9]]
TARGETS = [[7, 3, 4], [5, 9, 9, 8], [6]]


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread."""


@pytest.fixture(scope="session")
def build() -> Callable[..., Transformer]:
    """A model in double precision, the same one for the same settings."""

    def make(vocab: int = VOCAB, seed: int = 0, **settings: Any) -> Transformer:
        torch.manual_seed(seed)
        model = Transformer(replace(SMALL, **settings), vocab)
        randomise(model)
        return model.double().eval()

    return make


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Give biases and norms values of their own: zeros and ones would hide mistakes."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) / 4)


@pytest.fixture(params=["post", "pre"])
def model(request: pytest.FixtureRequest, build: Any) -> Transformer:
    """Each of the two places of the norm."""
    made: Transformer = build(norm=request.param)
    return made


@pytest.fixture
def batch() -> Batch:
    """Three pairs of different lengths."""
    return make_batch(SOURCES, TARGETS)
