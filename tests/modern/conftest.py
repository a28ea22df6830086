"""Tiny models of the modern kind, and their twins in transformers."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

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


@pytest.fixture(scope="session")
def build() -> Callable[..., LanguageModel]:
    """A language model, the same one for the same settings."""

    def make(vocab: int = VOCAB, seed: int = 0, **settings: Any) -> LanguageModel:
        torch.manual_seed(seed)
        model = LanguageModel(replace(SMALL, **settings), vocab)
        liven(model)
        return model.eval()

    return make


def llama_config(config: Config, vocab: int) -> Any:
    """The settings of a Llama with our sizes."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope}
    if config.scaling is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": config.scaling.factor,
            "low_freq_factor": config.scaling.low,
            "high_freq_factor": config.scaling.high,
            "original_max_position_embeddings": config.scaling.trained,
        }
    return transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=config.d_model,
        intermediate_size=config.d_ff,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.longest,
        rms_norm_eps=config.eps,
        tie_word_embeddings=config.tied,
        rope_parameters=rope,
        attn_implementation="eager",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def llama_names(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Our tensors, weights or gradients, under Llama's names."""
    found = {
        "model.embed_tokens.weight": tensors.get(
            "embedding.weight", tensors["output.weight"]
        ),
        "model.norm.weight": tensors["norm.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    one_to_one = {
        "after_own.norm": "input_layernorm",
        "own.query": "self_attn.q_proj",
        "own.output": "self_attn.o_proj",
        "after_feed_forward.norm": "post_attention_layernorm",
        "feed_forward.outer": "mlp.down_proj",
    }
    two_in_one = {
        "own.key_value": ("self_attn.k_proj", "self_attn.v_proj"),
        "feed_forward.inner": ("mlp.gate_proj", "mlp.up_proj"),
    }
    for i in range(layers):
        for ours, theirs in one_to_one.items():
            name = f"model.layers.{i}.{theirs}.weight"
            found[name] = tensors[f"layers.{i}.{ours}.weight"]
        for ours, both in two_in_one.items():
            halves = tensors[f"layers.{i}.{ours}.weight"].chunk(2)
            for theirs, half in zip(both, halves, strict=True):
                found[f"model.layers.{i}.{theirs}.weight"] = half
    return found


@pytest.fixture(scope="session")
def twin() -> Callable[[LanguageModel], Any]:
    """The Llama with the weights of ours."""

    def make(model: LanguageModel) -> Any:
        config = llama_config(model.config, model.output.out_features)
        theirs = transformers.LlamaForCausalLM(config).eval()
        tensors = {n: t.detach() for n, t in model.named_parameters()}
        theirs.load_state_dict(llama_names(tensors, model.config.layers))
        return theirs

    return make
