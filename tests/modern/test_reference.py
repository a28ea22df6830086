"""Equal to other people's: torch's own, and Llama, Bloom and T5 of transformers."""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from annotated.decoding import greedy
from annotated.llama import llama_weights
from annotated.modern import (
    Config,
    GatedFeedForward,
    GroupedQueryAttention,
    RMSNorm,
    Scaling,
    frequencies,
    rotate,
)
from annotated.transformer import MultiHeadAttention, Positions, causal

from .conftest import SMALL, VOCAB, liven, llama_settings, turned

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.llama import modeling_llama as llama
    from transformers.models.t5.modeling_t5 import T5Attention, T5Config

EXACT = {"rtol": 0.0, "atol": 1e-12}
CLOSE = {"rtol": 0.0, "atol": 1e-6}  # their softmax and norms are in single precision
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_modern.ipynb"


def with_gradients(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """What a function returns, and the gradient of each of its arguments."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    result = function(*leaves)
    torch.manual_seed(1)
    (result * torch.randn_like(result)).sum().backward()
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def agree(
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    *tensors: Tensor,
    **tolerance: float,
) -> None:
    """Results and gradients are the same."""
    mine, other = with_gradients(ours, *tensors), with_gradients(theirs, *tensors)
    assert len(mine) == len(other) == 1 + len(tensors)
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, **(tolerance or EXACT))


# The parts


def test_rms_norm() -> None:
    """Torch's in double precision, gradients of x and of the gain too."""
    torch.manual_seed(0)
    norm = RMSNorm(16, eps=1e-3).double()
    x, gain = torch.randn(3, 5, 16).double(), torch.randn(16).double()

    def ours(x: Tensor, gain: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(norm, {"weight": gain}, (x,))
        return found

    agree(ours, lambda x, gain: F.rms_norm(x, (16,), gain, 1e-3), x, gain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rms_norm_is_llamas_to_the_last_bit(dtype: torch.dtype) -> None:
    """In half precision the order of cast and gain shows: theirs, and ours."""
    torch.manual_seed(0)
    ours, theirs = RMSNorm(256).to(dtype), llama.LlamaRMSNorm(256, 1e-5).to(dtype)
    with torch.no_grad():
        ours.weight.copy_(2 + torch.randn(256) / 2)
        theirs.weight.copy_(ours.weight)
        x = (3 * torch.randn(200, 256)).to(dtype)
        assert torch.equal(ours(x), theirs(x))


def angles(length: int, d_head: int) -> Tensor:
    """Angles of the pairs at each place."""
    return torch.arange(length)[:, None] * frequencies(d_head)


def test_rotations() -> None:
    """Llama's, and a product of complex numbers; gradients too."""
    torch.manual_seed(0)
    x, angle = torch.randn(2, 3, 9, 8).double(), angles(9, 8)
    turn = turned(angle)
    cos, sin = (both.repeat(1, 2)[None] for both in (angle.cos(), angle.sin()))

    def complex_form(x: Tensor) -> Tensor:
        hands = torch.complex(*x.chunk(2, dim=-1))
        hands = hands * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([hands.real, hands.imag], dim=-1)

    agree(
        lambda x: rotate(x, turn),
        lambda x: llama.apply_rotary_pos_emb(x, x, cos, sin)[0],
        x,
    )
    agree(lambda x: rotate(x, turn), complex_form, x)


@pytest.mark.parametrize(
    "scaling",
    [None, Scaling(), Scaling(32.0, 1.0, 4.0, 64), Scaling(4.0, 2.0, 3.0, 512)],
)
def test_frequencies(scaling: Scaling | None) -> None:
    """Plain, and stretched as in Llama 3.1."""
    config = replace(SMALL, d_model=384, rope=500_000.0, scaling=scaling)
    theirs = llama_settings(config, VOCAB)
    if scaling is None:
        wanted, _ = llama.LlamaRotaryEmbedding.compute_default_rope_parameters(theirs)
    else:
        wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](theirs, "cpu")
    found = frequencies(64, 500_000.0, scaling)
    torch.testing.assert_close(found.float(), wanted, rtol=1e-5, atol=0.0)


def test_swiglu() -> None:
    """Llama's network, with the gradients of its three matrices."""
    torch.manual_seed(0)
    ours = GatedFeedForward(24, 40).double()
    theirs = llama.LlamaMLP(llama_settings(SMALL, VOCAB)).double()
    gate, up = ours.inner.weight.detach().chunk(2)
    theirs.load_state_dict(
        {
            "gate_proj.weight": gate,
            "up_proj.weight": up,
            "down_proj.weight": ours.outer.weight.detach(),
        }
    )
    agree(ours, theirs, torch.randn(2, 5, 24).double())
    inner = torch.cat([theirs.gate_proj.weight.grad, theirs.up_proj.weight.grad])
    torch.testing.assert_close(ours.inner.weight.grad, inner, **EXACT)
    outer = theirs.down_proj.weight.grad
    torch.testing.assert_close(ours.outer.weight.grad, outer, **EXACT)


@pytest.mark.parametrize(
    ("gate", "act"),
    [
        ("sigmoid", torch.sigmoid),
        ("relu", torch.relu),
        ("gelu", lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2),
        ("silu", lambda z: z / (1 + torch.exp(-z))),
    ],
)
def test_each_gate(gate: str, act: Callable[[Tensor], Tensor]) -> None:
    """By its formula."""
    torch.manual_seed(0)
    network, x = GatedFeedForward(8, 12, gate).double(), torch.randn(5, 8).double()
    W, V = network.inner.weight.chunk(2)
    wanted = (act(x @ W.T) * (x @ V.T)) @ network.outer.weight.T
    torch.testing.assert_close(network(x), wanted, **EXACT)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("weights", [False, True])
def test_grouped_attention(kv_heads: int, weights: bool) -> None:
    """Llama's, forward and gradients, by the fast call and by the formula."""
    torch.manual_seed(0)
    config = replace(SMALL, kv_heads=kv_heads)
    ours = config.attention().double()
    theirs = llama.LlamaAttention(llama_settings(config, VOCAB), 0).double().eval()
    key, value = ours.key_value.weight.detach().chunk(2)
    theirs.load_state_dict(
        {
            "q_proj.weight": ours.query.weight.detach(),
            "k_proj.weight": key,
            "v_proj.weight": value,
            "o_proj.weight": ours.output.weight.detach(),
        }
    )
    turn = ours.rotary.table[:, :7, 2:].double().repeat(1, 1, 2)[:, None]
    hidden = torch.zeros(7, 7).double().masked_fill(~causal(7), -math.inf)[None, None]
    options = {"is_causal": True, "weights": weights}
    agree(
        lambda x: ours(x, ours.remember(x), **options)[0],
        lambda x: theirs(x, tuple(turn), hidden)[0],
        torch.randn(2, 7, 24).double(),
        **CLOSE,
    )
    both = torch.cat([theirs.k_proj.weight.grad, theirs.v_proj.weight.grad])
    torch.testing.assert_close(ours.key_value.weight.grad, both, **CLOSE)
    for mine, other in ((ours.query, theirs.q_proj), (ours.output, theirs.o_proj)):
        torch.testing.assert_close(mine.weight.grad, other.weight.grad, **CLOSE)


def test_as_many_groups_as_heads_is_the_attention_before() -> None:
    """Chapter 4's module, weight for weight, where nothing turns."""
    torch.manual_seed(0)
    config = replace(SMALL, kv_heads=6, rope=0.0, bias=True)
    new, old = config.attention().double(), MultiHeadAttention(24, 6).double()
    liven(old)
    new.load_state_dict(old.state_dict())
    x, source = torch.randn(2, 5, 24).double(), torch.randn(2, 4, 24).double()
    real = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()[:, None, None]
    for options in ({}, {"visible": real}, {"weights": True, "visible": real}):
        found = new(x, new.remember(source), **options)
        wanted = old(x, old.remember(source), **options)
        torch.testing.assert_close(found, wanted, **EXACT)


# Added to the scores: cells of the chapter that are not in the package


@pytest.fixture(scope="module")
def biases() -> dict[str, Any]:
    """What the chapter's cells ``biases`` and ``extrapolation-parts`` define."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    names: dict[str, Any] = {"torch": torch, "math": math, "nn": torch.nn, "F": F}
    names |= {"Positions": Positions, "causal": causal}
    names["GroupedQueryAttention"] = GroupedQueryAttention
    for cell in ("biases", "extrapolation-parts"):
        exec(compile(source[cell], cell, "exec"), names)
    return names


@pytest.mark.parametrize("heads", [1, 4, 6, 8, 12, 16])
def test_alibi(biases: dict[str, Any], heads: int) -> None:
    """Bloom's, but for a number that a whole row shares, which no softmax sees."""
    found = biases["alibi"](heads, 20)
    wanted = build_alibi_tensor(torch.ones(1, 20), heads, torch.float32)
    shifted = found - found[:, :, :1]
    expected = wanted.expand(heads, 20, 20)
    torch.testing.assert_close(shifted, expected, rtol=0.0, atol=1e-5)
    assert not found.diagonal(dim1=1, dim2=2).any()


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (16, 64)])
def test_t5_buckets(biases: dict[str, Any], buckets: int, furthest: int) -> None:
    """T5's own, for all distances back, and for what lies ahead."""
    back = torch.arange(-50, 1000)
    wanted = T5Attention._relative_position_bucket(
        -back, bidirectional=False, num_buckets=buckets, max_distance=furthest
    )
    assert torch.equal(biases["t5_bucket"](back, buckets, furthest), wanted)


class Mixing:
    """In torch's place in a layer: keeps what is added to the scores, or changes it."""

    def __init__(self, other: Tensor | None = None) -> None:
        self.other, self.added = other, torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        query, key, value, self.added = inputs
        added = self.added if self.other is None else self.other
        return F.scaled_dot_product_attention(query, key, value, added.to(query))


def biased(
    biases: dict[str, Any], x: Tensor, learned: bool, other: Tensor | None = None
) -> tuple[list[Tensor], Any, Tensor]:
    """A layer's result and gradients, the layer, and what it added to the scores."""
    torch.manual_seed(0)
    config = replace(SMALL, kv_heads=6, rope=0.0)
    layer = biases["Biased"](config, learned).double()
    if learned:
        torch.nn.init.normal_(layer.table)
    mixing = Mixing(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(biases, "F", SimpleNamespace(scaled_dot_product_attention=mixing))
        found = with_gradients(lambda x: layer(x, layer.remember(x))[0], x)
    found += [p.grad for p in layer.parameters() if p is not layer.table]
    return found, layer, mixing.added


def test_alibi_in_attention(biases: dict[str, Any]) -> None:
    """With Bloom's numbers in their place: same results and gradients, all heads."""
    x, seen = torch.randn(2, 40, 24).double(), causal(40)
    wanted = build_alibi_tensor(torch.ones(1, 40), 6, torch.float64)
    hidden = wanted.expand(6, 40, 40).masked_fill(~seen, -math.inf)
    ours, theirs = (biased(biases, x, False, other)[0] for other in (None, hidden))
    assert len(ours) == 5
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=0.0, atol=1e-10)


def test_t5_in_attention(biases: dict[str, Any]) -> None:
    """The whole bias that a layer looks up is T5's, and so are all gradients."""
    n, x = 150, torch.randn(2, 150, 24).double()  # beyond 128 words, where one is left
    found, layer, added = biased(biases, x, True)
    sizes = {"d_model": 24, "num_heads": 6, "d_kv": 4, "is_decoder": True}
    t5 = T5Attention(T5Config(**sizes), has_relative_attention_bias=True, layer_idx=0)
    t5.double().load_state_dict(
        {"relative_attention_bias.weight": layer.table.detach().T}, strict=False
    )
    bias = t5.compute_bias(n, n)[0]
    seen = causal(n)
    assert torch.equal(added[:, seen], bias[:, seen])
    assert added[:, ~seen].isneginf().all()
    wanted, _, _ = biased(biases, x, True, bias.masked_fill(~seen, -math.inf))
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, **EXACT)
    table = t5.relative_attention_bias.weight.grad
    assert table.abs().min() > 0
    torch.testing.assert_close(layer.table.grad, table.T, **EXACT)


# The whole


KINDS = [
    pytest.param({}, id="grouped, tied"),
    pytest.param({"tied": False}, id="untied"),
    pytest.param({"kv_heads": 6}, id="no groups"),
    pytest.param({"kv_heads": 1, "rope": 500_000.0}, id="one group, other base"),
    pytest.param({"scaling": Scaling(8.0, 1.0, 4.0, 32)}, id="stretched"),
    pytest.param(
        {"scaling": Scaling(32.0, 1.0, 4.0, 16), "tied": False, "eps": 1e-3},
        id="stretched, untied, other epsilon",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_llama(build: Any, twin: Any, kind: dict[str, Any]) -> None:
    """To 1e-5 in single precision, over 90 words."""
    model = build(**kind)
    theirs = twin(model)
    ids = torch.randint(3, VOCAB, (3, 90))
    with torch.no_grad():
        wanted = theirs(ids).logits
        found = model.output(model.read(ids)[0])
    assert wanted.std() > 0.3
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_of_llama(build: Any, twin: Any, kind: dict[str, Any]) -> None:
    """Each with its cache, one prompt at a time and all in one batch."""
    model = build(**kind)
    theirs = twin(model)
    lengths = [9, 4, 1, 6]
    prompts = torch.randint(3, VOCAB, (4, 9))
    for row, length in enumerate(lengths):
        prompts[row, length:] = 0
    together = greedy(model, prompts, torch.tensor(lengths), max_length=25)
    for row, length in enumerate(lengths):
        prompt = prompts[[row], :length]
        wanted = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=25,
            do_sample=False,
            suppress_tokens=[0, 1],
        )[0, length:].tolist()
        wanted = wanted[: wanted.index(2)] if 2 in wanted else wanted
        alone = greedy(model, prompt, torch.tensor([length]), max_length=25)
        assert alone[0][0].ids == wanted
        assert together[row][0].ids == wanted


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[4]])
def test_loss_and_gradients_of_llama(
    build: Any, twin: Any, kind: dict[str, Any]
) -> None:
    """The mean over all words but the first, and what it says to each weight."""
    model = build(**kind)
    theirs = twin(model).train()
    ids = torch.randint(1, VOCAB, (3, 30))  # their padding learns nothing
    wanted = theirs(ids, labels=ids).loss
    found = model.loss(ids)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-5)
    wanted.backward()
    found.backward()
    ours = {n: p.grad for n, p in model.named_parameters()}
    named = llama_weights(ours, model.config)
    compared = 0
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(named[name], parameter.grad, rtol=1e-3, atol=1e-5)
        compared += 1
    assert compared == 2 + 9 * model.config.layers + (not model.config.tied)


def test_published_size() -> None:
    """As many weights as Llama 3.2's smallest has, and as transformers would make."""
    from annotated.modern import PRESETS, LanguageModel

    config = PRESETS["llama-3.2-1b"]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = LanguageModel(config, 128_256)
        theirs = llama.LlamaForCausalLM(llama_settings(config, 128_256))
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == 1_235_814_400
    assert isinstance(config, Config)
