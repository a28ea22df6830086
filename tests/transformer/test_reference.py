"""Each module against torch's own, weights copied: forward and every gradient."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated import transformer
from annotated.attention import real_words
from annotated.parallel import Batch
from annotated.transformer import (
    Config,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    MultiHeadAttention,
    Residual,
    Transformer,
    attend,
    causal,
    sinusoids,
)

CLOSE = {"rtol": 0.0, "atol": 1e-10}
D, HEADS, FF = 12, 3, 20
CONFIG = Config(layers=2, d_model=D, d_ff=FF, heads=HEADS, dropout=0.0)
LENGTHS = torch.tensor([6, 2, 4])
REAL = real_words(LENGTHS, 6)
Tensors = Mapping[str, Tensor]


def words(*shape: int, seed: int = 0) -> Tensor:
    """Random vectors that want a gradient."""
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, D, generator=chance, dtype=torch.float64)
    return x.requires_grad_()


def made(module: nn.Module) -> Any:
    """The module in double precision; no bias is left at zero and no gain at one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module.double()


def under(tensors: Tensors, *names: str) -> Tensor:
    """Weights one above the other, as torch keeps query, key and value."""
    return torch.cat([tensors[name] for name in names])


def attention(ours: Tensors, at: str, there: str) -> dict[str, Tensor]:
    """Tensors of a MultiHeadAttention under torch's names."""
    return {
        f"{there}in_proj_{part}": under(
            ours, f"{at}query.{part}", f"{at}key_value.{part}"
        )
        for part in ("weight", "bias")
    } | {
        f"{there}out_proj.{part}": ours[f"{at}output.{part}"]
        for part in ("weight", "bias")
    }


def layer(ours: Tensors, at: str = "", there: str = "") -> dict[str, Tensor]:
    """Tensors of an encoder or a decoder layer under torch's names."""
    crosses = f"{at}cross.query.weight" in ours
    found = attention(ours, f"{at}own.", f"{there}self_attn.")
    if crosses:
        found |= attention(ours, f"{at}cross.", f"{there}multihead_attn.")
    names = {
        "feed_forward.inner": "linear1",
        "feed_forward.outer": "linear2",
        "after_own.norm": "norm1",
        "after_feed_forward.norm": "norm3" if crosses else "norm2",
    }
    if crosses:
        names["after_cross.norm"] = "norm2"
    return found | {
        f"{there}{theirs}.{part}": ours[f"{at}{name}.{part}"]
        for name, theirs in names.items()
        for part in ("weight", "bias")
    }


def parameters(module: nn.Module) -> Tensors:
    """Weights by name."""
    return {name: p.detach() for name, p in module.named_parameters()}


def gradients(module: nn.Module) -> Tensors:
    """Gradients by name; every weight has one."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def compare(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    """Outputs agree, and so do the gradients of a random function of them."""
    torch.testing.assert_close(ours, theirs, **CLOSE)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(9))
    for x in inputs:
        x.grad = None
    (theirs * weight).sum().backward()
    wanted = [x.grad.clone() for x in inputs if x.grad is not None]
    for x in inputs:
        x.grad = None
    (ours * weight).sum().backward()
    assert len(wanted) == len(inputs)
    for x, other in zip(inputs, wanted, strict=True):
        assert x.grad is not None
        torch.testing.assert_close(x.grad, other, **CLOSE)


def same_gradients(theirs: nn.Module, ours: Tensors) -> None:
    """The gradients of all of torch's weights, under torch's names."""
    wanted = gradients(theirs)
    assert wanted.keys() == dict(theirs.named_parameters()).keys() == ours.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, **CLOSE)


MASKS = {
    "none": None,
    "padding": REAL[:, None, None],
    "causal": causal(6)[None, None],
    "both": REAL[:, None, None] & causal(6),
}


@pytest.mark.parametrize("kind", MASKS)
def test_attend_is_scaled_dot_product_attention(kind: str) -> None:
    """The explicit formula and the library's kernel."""
    x = [words(3, HEADS, 6, seed=seed) for seed in range(3)]
    mask = MASKS[kind]
    mixed, weight = attend(*x, mask)
    compare(mixed, F.scaled_dot_product_attention(*x, attn_mask=mask), x)
    torch.testing.assert_close(weight.sum(-1), torch.ones_like(weight[..., 0]))
    if mask is not None:
        assert not weight.masked_select(~mask.expand_as(weight)).any()


def test_attend_additive_is_boolean() -> None:
    """Minus infinity added to the scores is a word that may not be seen."""
    x = [words(3, HEADS, 6, seed=seed) for seed in range(3)]
    hidden = torch.zeros(6, 6, dtype=torch.float64).masked_fill(~causal(6), -math.inf)
    theirs = F.scaled_dot_product_attention(*x, attn_mask=hidden)
    compare(attend(*x, causal(6)[None, None])[0], theirs, x)


def test_attend_with_other_sizes() -> None:
    """Values of their own width, more keys than queries, any number of batch axes."""
    torch.manual_seed(0)
    for axes in ((), (2,), (2, 1, 3)):
        query, key = torch.randn(*axes, 4, 5), torch.randn(*axes, 7, 5)
        value = torch.randn(*axes, 7, 2)
        mixed, weight = attend(query, key, value)
        assert mixed.shape == (*axes, 4, 2)
        assert weight.shape == (*axes, 4, 7)


def test_the_four_words_worked_out_by_hand() -> None:
    """Causal attention over four words of width three, to four digits."""
    x = torch.tensor(
        [[0.5, 0.1, 0.3], [0.7, 0.2, 0.9], [0.6, 0.4, 0.8], [0.8, 0.3, 0.5]]
    )
    w = torch.tensor([[0.5, 0.1, 0.3], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])
    key = torch.tensor(
        [[0.36, 0.15, 0.34], [0.66, 0.30, 0.77], [0.62, 0.42, 0.70], [0.61, 0.34, 0.57]]
    )
    torch.testing.assert_close(x @ w, key)
    mixed, weight = attend(x, key, x, causal(4))
    last = torch.tensor([0.2047, 0.2732, 0.2684, 0.2537])
    wanted = torch.tensor(
        [
            [0.5000, 0.1000, 0.3000],
            [0.6179, 0.1590, 0.6537],
            [0.6106, 0.2464, 0.7047],
            [0.6576, 0.2586, 0.6488],
        ]
    )
    torch.testing.assert_close(weight[3], last, rtol=0, atol=6e-5)
    torch.testing.assert_close(mixed, wanted, rtol=0, atol=6e-5)
    assert not weight.triu(1).any()


def test_attend_in_half_precision() -> None:
    """A mask that no half-precision number overflows."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 5, 8)
    wanted = attend(query, key, value, causal(5)[None])[0]
    found = attend(query.half(), key.half(), value.half(), causal(5)[None])[0]
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=5e-3)


def test_a_query_that_sees_nothing_is_told_by_nan() -> None:
    """Not a mean of what it may not see."""
    one = torch.ones(2, 3)
    seen = torch.tensor([[True, False], [False, False]])
    mixed, weight = attend(one, one, one, seen)
    assert weight[0].tolist() == [1.0, 0.0]
    assert weight[1].isnan().all()
    assert mixed[1].isnan().all()


def test_scores_have_the_variance_of_their_vectors() -> None:
    """Whatever the width: the softmax of a wide head is not saturated."""
    torch.manual_seed(0)
    for width in (4, 64, 1024):
        query, key = torch.randn(2, 200, width).unbind()
        weight = attend(query, key, key)[1]
        score = weight.log() - weight.log().mean(-1, keepdim=True)
        assert abs(score.var().item() - 1) < 0.1
        assert weight.amax(-1).mean() < 0.2


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["self", "padded", "masked", "cross"])
def test_multi_head_attention(kind: str, weights: bool) -> None:
    """Of a sequence to itself, to its past, and to another one."""
    ours = made(MultiHeadAttention(D, HEADS)).eval()
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    theirs.load_state_dict(attention(parameters(ours), "", ""))
    x, other = words(3, 5 if kind == "cross" else 6), words(3, 6, seed=1)
    source = other if kind == "cross" else x
    hidden = ~REAL if kind in ("cross", "padded") else None
    past = kind == "masked"
    wanted, their_weight = theirs(
        x, source, source,
        key_padding_mask=hidden,
        attn_mask=~causal(6) if past else None,
        average_attn_weights=False,
    )  # fmt: skip
    visible = None if hidden is None else REAL[:, None, None]
    found, weight = ours(x, ours.remember(source), visible, past, weights)
    assert (weight is not None) == weights
    if weights:
        torch.testing.assert_close(weight, their_weight, **CLOSE)
    compare(found, wanted, [x, other] if kind == "cross" else [x])
    same_gradients(theirs, attention(gradients(ours), "", ""))


def test_feed_forward() -> None:
    """Two linear layers, what is negative in between cut off."""
    ours, x = made(FeedForward(D, FF)), words(3, 6)
    theirs = nn.Sequential(nn.Linear(D, FF), nn.ReLU(), nn.Linear(FF, D)).double()
    for there, here in ((theirs[0], ours.inner), (theirs[2], ours.outer)):
        there.load_state_dict(here.state_dict())
    compare(ours(x), theirs(x), [x])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_residual(norm: str) -> None:
    """The sum first and then the norm, or the norm inside the branch."""
    ours = made(Residual(D, 0.0, norm))
    theirs = nn.LayerNorm(D).double()
    theirs.load_state_dict(ours.norm.state_dict())
    x = words(3, 6)
    found = ours.add(x, ours.read(x).tanh())
    wanted = x + theirs(x).tanh() if norm == "pre" else theirs(x + x.tanh())
    compare(found, wanted, [x])
    same_gradients(theirs, dict(gradients(ours.norm)))


def test_norm_of_one_word_by_hand() -> None:
    """Of 1, 0, 0, 0: the biased deviation, and eps below the root."""
    norm = Residual(4, 0.0, "pre").requires_grad_(False)
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    root = math.sqrt(3 / 16 + 1e-5)
    wanted = [0.75 / root, *[-0.25 / root] * 3]
    torch.testing.assert_close(norm.read(x)[0, 0], torch.tensor(wanted))
    assert abs(norm.read(x)[0, 0, 0].item() - 1.7320) < 1e-4
    small = 1e-3 * x
    low = 0.75e-3 / math.sqrt(3e-6 / 16 + 1e-5)
    torch.testing.assert_close(norm.read(small)[0, 0, 0], torch.tensor(low))


def torch_layer(kind: type, norm: str, dropout: float = 0.0) -> Any:
    """A layer of torch, of the same sizes."""
    return kind(
        D, HEADS, FF, dropout=dropout, batch_first=True, norm_first=norm == "pre"
    ).double()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_encoder_layer(norm: Any) -> None:
    """With padding among the keys."""
    ours = made(EncoderLayer(replace(CONFIG, norm=norm)))
    theirs = torch_layer(nn.TransformerEncoderLayer, norm)
    theirs.load_state_dict(layer(parameters(ours)))
    x = words(3, 6)
    found, wanted = ours(x, REAL[:, None, None]), theirs(x, src_key_padding_mask=~REAL)
    real = REAL[..., None]
    compare(found * real, wanted * real, [x])
    same_gradients(theirs, layer(gradients(ours)))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_decoder_layer(norm: Any) -> None:
    """Its own past, and a padded source."""
    ours = made(DecoderLayer(replace(CONFIG, norm=norm)))
    theirs = torch_layer(nn.TransformerDecoderLayer, norm)
    theirs.load_state_dict(layer(parameters(ours)))
    x, source = words(3, 5), words(3, 6, seed=1)
    found = ours(x, ours.cross.remember(source), REAL[:, None, None])
    wanted = theirs(
        x, source, tgt_mask=~causal(5), memory_key_padding_mask=~REAL,
        tgt_is_causal=False,
    )  # fmt: skip
    compare(found, wanted, [x, source])
    same_gradients(theirs, layer(gradients(ours)))


class Masks:
    """Dropout whose masks depend on nothing but how often it was called before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(F, "dropout", self.dropout)
        monkeypatch.setattr(transformer, "dropout", self.dropout)
        monkeypatch.setattr(F, "scaled_dot_product_attention", self.attention)

    def dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Drop the elements that the number of the call decides."""
        if not training or not p:
            return x
        self.calls += 1
        chance = torch.Generator().manual_seed(self.calls)
        kept = torch.rand(x.shape, generator=chance, dtype=x.dtype) >= p
        return x * kept / (1 - p)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, **_: Any,
    ) -> Tensor:  # fmt: skip
        """The library's kernel as it is written in its documentation."""
        score = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if is_causal:
            attn_mask = causal(q.shape[-2])
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            score = score.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            score = score + attn_mask
        return self.dropout(score.softmax(-1), dropout_p) @ v


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_is_in_the_same_places(
    norm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same masks in the same order give the same numbers: four places, or six."""
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.4)
    config = replace(CONFIG, norm=norm, **rates)
    x, source = words(3, 5), words(3, 6, seed=1)
    real = REAL[:, None, None]
    ours = made(EncoderLayer(config)).train()
    theirs = torch_layer(nn.TransformerEncoderLayer, norm, 0.4).train()
    theirs.load_state_dict(layer(parameters(ours)))
    count = Masks(monkeypatch)
    wanted = theirs(source, src_key_padding_mask=~REAL)
    assert count.calls == 4
    count.calls = 0
    torch.testing.assert_close(ours(source, real), wanted, **CLOSE)
    assert count.calls == 4
    ours = made(DecoderLayer(config)).train()
    theirs = torch_layer(nn.TransformerDecoderLayer, norm, 0.4).train()
    theirs.load_state_dict(layer(parameters(ours)))
    count.calls = 0
    wanted = theirs(x, source, tgt_mask=~causal(5), memory_key_padding_mask=~REAL)
    assert count.calls == 6
    count.calls = 0
    found = ours(x, ours.cross.remember(source), real)
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert count.calls == 6
    for module in (ours, theirs):
        module.eval()
    count.calls = 0
    ours(x, ours.cross.remember(source), real)
    assert count.calls == 0


def torch_transformer(model: Transformer) -> nn.Transformer:
    """The whole Transformer of torch with our weights."""
    c = model.config
    pre = c.norm == "pre"
    size = (c.d_model, c.heads, c.d_ff)
    options: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": pre}
    last = [nn.LayerNorm(c.d_model) if pre else None for _ in range(2)]
    theirs = nn.Transformer(
        c.d_model,
        c.heads,
        custom_encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*size, **options),
            c.layers, last[0], enable_nested_tensor=False,
        ),
        custom_decoder=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*size, **options), c.layers, last[1]
        ),
        batch_first=True,
    ).double()  # fmt: skip
    theirs.load_state_dict(whole(parameters(model), c))
    return theirs


def whole(ours: Tensors, config: Config) -> dict[str, Tensor]:
    """Tensors of a Transformer, its embeddings left out, under torch's names."""
    found: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        for i in range(config.layers):
            found |= layer(ours, f"{side}.{i}.", f"{side}.layers.{i}.")
        if config.norm == "pre":
            for part in ("weight", "bias"):
                found[f"{side}.norm.{part}"] = ours[f"{side}_norm.{part}"]
    return found


def embedded(ids: Tensor, table: Tensor) -> Tensor:
    """Embeddings times the root of their width, and the sinusoids."""
    d = table.shape[1]
    return table[ids] * d**0.5 + sinusoids(ids.shape[1], d).to(table)


def test_the_whole(model: Transformer, batch: Batch) -> None:
    """Encoder, decoder, embeddings and output of nn.Transformer, gradients too."""
    theirs = torch_transformer(model)
    table = model.output.weight.detach().clone().requires_grad_()
    hidden = ~real_words(batch.source_lengths, batch.source.shape[1])
    wanted = theirs(
        embedded(batch.source, table),
        embedded(batch.target_in, table),
        tgt_mask=~causal(batch.target_in.shape[1]),
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    found = model.features(batch)
    torch.testing.assert_close(found, wanted, **CLOSE)
    real = batch.target_out != 0
    right = batch.target_out[real]
    F.cross_entropy(wanted[real] @ table.T, right).backward()
    F.cross_entropy(model.output(found[real]), right).backward()
    assert model.output.weight.grad is not None
    assert table.grad is not None
    torch.testing.assert_close(model.output.weight.grad, table.grad, **CLOSE)
    same_gradients(theirs, whole(gradients(model), model.config))
