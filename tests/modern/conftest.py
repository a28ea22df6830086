"""Tiny models of the modern kind, and their twins in transformers."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from annotated.llama import llama_config, llama_weights
from annotated.modern import Config, LanguageModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

SMALL = Config(layers=2, d_model=24, d_ff=40, heads=6, kv_heads=2, longest=256)
VOCAB = 40


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread."""


@torch.no_grad()
def liven(model: torch.nn.Module) -> None:
    """Weights of a size that matters: first values would hide mistakes."""
    for parameter in model.parameters():
        size = 0.15 if parameter.dim() > 1 else 0.25
        parameter.add_(torch.randn_like(parameter) * size)


def turned(angle: Tensor) -> Tensor:
    """Cosines and sines of these angles, as `rotate` takes them."""
    angle = torch.cat([-angle, angle], dim=-1)
    return torch.stack([angle.cos(), angle.sin()])


@pytest.fixture(scope="session")
def build() -> Callable[..., LanguageModel]:
    """A language model, the same one for the same settings."""

    def make(vocab: int = VOCAB, seed: int = 0, **settings: Any) -> LanguageModel:
        torch.manual_seed(seed)
        model = LanguageModel(replace(SMALL, **settings), vocab)
        liven(model)
        return model.eval()

    return make


def llama_settings(config: Config, vocab: int) -> Any:
    """The settings of a Llama with our sizes."""
    return transformers.LlamaConfig(
        **llama_config(config, vocab), attn_implementation="eager"
    )


@pytest.fixture(scope="session")
def twin() -> Callable[[LanguageModel], Any]:
    """The Llama with the weights of ours."""

    def make(model: LanguageModel) -> Any:
        config = llama_settings(model.config, model.output.out_features)
        theirs = transformers.LlamaForCausalLM(config).eval()
        weights = llama_weights(model.state_dict(), model.config)
        weights.setdefault("lm_head.weight", model.output.weight.detach())
        theirs.load_state_dict(weights)
        return theirs

    return make
