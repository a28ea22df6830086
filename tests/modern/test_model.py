"""What must hold for the modern parts: invariants, search, sizes, errors, training."""

import doctest
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import annotated.kernels
import annotated.modern
from annotated.decoding import StepModel, beam_search, greedy, sample
from annotated.kernels import Module, causal_attention, in_strips, rms_norm
from annotated.modern import (
    PRESETS,
    Block,
    Config,
    GroupedQueryAttention,
    LanguageModel,
    RMSNorm,
    Rotary,
    Scaling,
    frequencies,
    rotate,
)
from annotated.parallel import make_batch
from annotated.subwords import START
from annotated.training import batch_loss
from annotated.transformer import Config as TransformerConfig
from annotated.transformer import DecoderLayer, EncoderLayer, Transformer

from .conftest import SMALL, VOCAB, liven, turned

CLOSE = {"rtol": 0.0, "atol": 1e-10}
few = settings(
    max_examples=15, deadline=None, derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # what fails is small enough as it is
)  # fmt: skip
ids = st.lists(st.integers(3, VOCAB - 1), min_size=2, max_size=12)
kinds = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["pre", "post"]),
        "rms": st.booleans(),
        "gate": st.sampled_from(["silu", "gelu", "none"]),
        "kv_heads": st.sampled_from([1, 2, 6]),
        "rope": st.sampled_from([10_000.0, 500_000.0]),
        "bias": st.booleans(),
        "tied": st.booleans(),
        "scaling": st.sampled_from([None, Scaling(8.0, 1.0, 4.0, 16)]),
    }
)


def logits(model: LanguageModel, text: list[int]) -> Tensor:
    """Of each next word, by the model without a cache."""
    with torch.no_grad():
        found: Tensor = model.output(model.read(torch.tensor([text]))[0])[0]
    return found


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    for module, least in ((annotated.modern, 3), (annotated.kernels, 1)):
        result = doctest.testmod(module, extraglobs={"torch": torch})
        assert result.attempted >= least
        assert result.failed == 0


# Invariants of the language model


@few
@given(kinds, ids, st.data())
def test_a_later_word_changes_nothing_before_it(
    build: Any, kind: dict[str, Any], text: list[int], data: Any
) -> None:
    """And it changes what comes from it on."""
    model = build(**kind).double()
    at = data.draw(st.integers(0, len(text) - 1))
    other = [*text]
    other[at] = (other[at] - 2) % (VOCAB - 3) + 3
    before, after = logits(model, text), logits(model, other)
    assert torch.equal(before[:at], after[:at])
    assert (before[at:] - after[at:]).abs().amax(-1).min() > 1e-9


@few
@given(kinds, ids, st.data())
def test_cached_is_uncached(
    build: Any, kind: dict[str, Any], text: list[int], data: Any
) -> None:
    """A prompt of any length, and then one word at a time."""
    model = build(**kind).double()
    prompt = data.draw(st.integers(1, len(text)))
    with torch.no_grad():
        source = torch.tensor([text[:prompt]])
        memory = model.encode(source, torch.tensor([prompt]))
        state, found = model.start(memory), []
        for word in [START, *text[prompt:]]:
            out, state = model.step(torch.tensor([[word]]), state, memory)
            found.append(out[0, 0])
    wanted = logits(model, text)[prompt - 1 :]
    torch.testing.assert_close(torch.stack(found), wanted, **CLOSE)
    assert state["past.0"].shape == (1, 1, 2, kind["kv_heads"], len(text), 4)


@few
@given(kinds, st.lists(ids, min_size=2, max_size=4))
def test_prompts_of_unequal_lengths(
    build: Any, kind: dict[str, Any], prompts: list[list[int]]
) -> None:
    """Each goes on as it does alone, whatever else is in the batch."""
    model = build(**kind).double()
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    source = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        source[row, : len(prompt)] = torch.tensor(prompt)
    start = torch.full((len(prompts), 1), START)
    after = torch.full_like(start, 7)
    with torch.no_grad():
        memory = model.encode(source, lengths)
        first, state = model.step(start, model.start(memory), memory)
        second, _ = model.step(after, state, memory)
    for row, prompt in enumerate(prompts):
        wanted = logits(model, [*prompt, 7])[-2:]
        # the table of angles is in single precision, and they stand at other places
        found = torch.stack([first[row, 0], second[row, 0]])
        torch.testing.assert_close(found, wanted, rtol=0.0, atol=2e-5)


def test_only_distances_count() -> None:
    """Scores of turned queries and keys, at any two places equally far apart."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 9, 16).double()

    def at(x: Tensor, first: int) -> Tensor:
        angle = torch.arange(first, first + 9)[:, None] * frequencies(16)
        return rotate(x, turned(angle))

    wanted = at(query, 0) @ at(key, 0).T
    for further in (1, 100, 10_000):
        found = at(query, further) @ at(key, further).T
        torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-9)
    assert (at(query, 1) @ at(key, 0).T - wanted).abs().max() > 0.1


def test_order_is_known_to_rotations_alone(build: Any) -> None:
    """Without them, the last of a permuted text says what it said before."""
    text, other = [5, 6, 7, 8, 9], [8, 5, 7, 6, 9]
    for rope, same in ((0.0, True), (10_000.0, False)):
        model = build(layers=1, rope=rope).double()
        one, two = logits(model, text)[-1], logits(model, other)[-1]
        assert torch.allclose(one, two, **CLOSE) == same


# Parts


def test_rms_norm_forgets_the_length_alone() -> None:
    """Not the mean; and a mean taken away first makes it a LayerNorm."""
    x, norm = torch.randn(4, 12).double(), RMSNorm(12).double()
    torch.testing.assert_close(norm(1000 * x), norm(x), rtol=0.0, atol=1e-3)
    assert (norm(x + 1) - norm(x)).abs().max() > 0.1
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(norm(centred), F.layer_norm(x, (12,)), **CLOSE)


def test_rms_norm_takes_its_statistic_in_single_precision() -> None:
    """Squares that half precision cannot hold, and a sum of many small ones."""
    x = torch.full((2, 4096), 300.0, dtype=torch.float16)
    with torch.no_grad():
        found = RMSNorm(4096).half()(x)
    assert found.dtype == torch.float16
    assert torch.equal(found, torch.ones_like(found))


def test_rotary_grows_and_counts_on() -> None:
    """A long text is its parts; the table is longer when it has to be."""
    rotary, x = Rotary(frequencies(8)), torch.randn(1, 2, 700, 8)
    whole = rotary(x)
    assert rotary.table.shape[1] >= 700
    for first in (0, 100, 699):
        part = Rotary(frequencies(8))(x[:, :, first:], first)
        torch.testing.assert_close(part, whole[:, :, first:])
    torch.testing.assert_close(whole.norm(dim=-1), x.norm(dim=-1))
    assert "table" not in rotary.state_dict()


def test_training_goes_on_with_a_table_that_grew_while_writing() -> None:
    """Tensors of inference mode cannot be trained with; the table is none."""
    rotary, x = Rotary(frequencies(8)), torch.randn(1, 2, 700, 8, requires_grad=True)
    with torch.inference_mode():
        wanted = rotary(x)
    found = rotary(x)
    found.sum().backward()
    assert torch.equal(found, wanted) and x.grad is not None


def test_rotary_turns_each_head_alike_and_each_word_by_its_place() -> None:
    """With as many heads as words, where a wrong axis would not be noticed."""
    x = torch.randn(2, 1, 1, 8).expand(2, 4, 4, 8)
    found = Rotary(frequencies(8))(x)
    assert torch.equal(found[:, 0], found[:, 3])
    assert not torch.allclose(found[:, :, 0], found[:, :, 3])
    assert torch.equal(found[:, :, 0], x[:, :, 0])


def test_a_norm_trained_by_hand_is_the_librarys() -> None:
    """In single precision, on a CPU; elsewhere it is the library's own."""
    results = []
    for way in (rms_norm, None):
        torch.manual_seed(0)
        x = torch.randn(2, 7, 16, requires_grad=True)
        gain = torch.randn(16, requires_grad=True)
        y = way(x, gain, 1e-3) if way else F.rms_norm(x, (16,), gain, 1e-3)
        assert (type(y.grad_fn).__name__ == "NormBackward") == (way is not None)
        y.sin().sum().backward()
        results.append([y, x.grad, gain.grad])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)
    low = rms_norm(x.bfloat16(), gain.bfloat16(), 1e-3)
    assert type(low.grad_fn).__name__ != "NormBackward"


def test_a_norm_by_hand_has_no_second_derivative() -> None:
    """It would be wrong, so it is refused."""
    x = torch.randn(3, 5, requires_grad=True)
    y = rms_norm(x, torch.ones(5), 1e-3).square().sum()
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


class Part(Module):
    """A module with a part, and a place without one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.none = nn.Linear(2, 2), None


@pytest.mark.parametrize("way", ["__setattr__", "add_module", "register_module"])
@pytest.mark.parametrize("name", ["inner", "other"])
def test_a_part_is_exchanged_in_both_places(way: str, name: str) -> None:
    """Whoever asks for it gets the new one, and torch sees no other."""
    pair, new = Part(), nn.Linear(2, 2)
    getattr(pair, way)(name, new)
    assert getattr(pair, name) is pair.__dict__[name] is pair._modules[name] is new
    delattr(pair, name)
    assert not hasattr(pair, name) and name not in pair._modules


@pytest.mark.parametrize("masked", [False, True])
def test_repeated_keys_are_groups(masked: bool, monkeypatch: Any) -> None:
    """As on a GPU where no fast kernel takes groups; gradients of all three too."""
    seen = (torch.rand(2, 1, 7, 7) < 0.5) | torch.eye(7).bool() if masked else None
    results, asked = [], []
    for together in (True, False):

        def answer(*inputs: Any, together: bool = together) -> bool:
            asked.append(inputs[3] is seen and inputs[5])
            return together

        monkeypatch.setattr(annotated.kernels, "takes_groups", answer)
        torch.manual_seed(0)
        leaves = [torch.randn(2, heads, 7, 4).double() for heads in (6, 2, 2)]
        query, key, value = (leaf.requires_grad_() for leaf in leaves)
        if masked:
            mixed = annotated.kernels.grouped_attention(query, key, value, seen)
        else:
            mixed = causal_attention(query, key, value)
        mixed.square().sum().backward()
        results.append([mixed, *(leaf.grad for leaf in leaves)])
    assert asked == [not masked] * 2
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, **CLOSE)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_a_layer_with_repeated_keys(kv_heads: int, monkeypatch: Any) -> None:
    """What a GPU does in single precision or under a mask, in all that is called."""
    torch.manual_seed(0)
    layer = GroupedQueryAttention(replace(SMALL, kv_heads=kv_heads)).double().eval()
    x, seen = torch.randn(2, 5, 24).double(), torch.ones(5, 5).tril().bool()[None, None]
    memory, found = layer.remember(x), []
    for together in (True, False):
        monkeypatch.setattr(
            annotated.kernels, "takes_groups", lambda *_, so=together: so
        )
        for how in ({"is_causal": True}, {"visible": seen}, {}):
            found.append(layer(x, memory, **how)[0])
    for one, two in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(one, two, **CLOSE)


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_strips_are_causal_attention(size: int) -> None:
    """Of any size, with gradients of queries, keys and values."""
    library = partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=True)
    results = []
    for way in (partial(in_strips, size=size), library):
        torch.manual_seed(0)
        leaves = [torch.randn(2, heads, 12, 4).double() for heads in (6, 2, 2)]
        mixed = way(*(leaf.requires_grad_() for leaf in leaves))
        mixed.square().sum().backward()
        results.append([mixed, *(leaf.grad for leaf in leaves)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, **CLOSE)


def test_training_in_bfloat16_goes_in_strips(build: Any, monkeypatch: Any) -> None:
    """Only there, and only with gradients; the loss is that of the library's way."""
    called, way = [], in_strips

    def noted(*inputs: Any) -> Any:
        called.append(len(inputs))
        return way(*inputs)

    monkeypatch.setattr(annotated.kernels, "in_strips", noted)
    model, text = build(), make_batch([[5]], [[7, 8, 9, 10]])
    losses = []
    for precision in ("fp32", "bf16"):
        with torch.no_grad():
            losses.append(batch_loss(model, text, precision=precision)[0])
        assert not called
    low, _ = batch_loss(model, text, precision="bf16")
    assert len(called) == SMALL.layers
    torch.testing.assert_close(low, losses[1], rtol=0.02, atol=0.0)
    low.backward()
    gradient = model.layers[0].own.query.weight.grad.clone()
    model.zero_grad()
    batch_loss(model, text)[0].backward()
    wanted = model.layers[0].own.query.weight.grad
    model.zero_grad()
    assert len(called) == SMALL.layers
    assert F.cosine_similarity(gradient.flatten(), wanted.flatten(), dim=0) > 0.99


def test_half_precision_stays_half(build: Any) -> None:
    """Queries and keys come back in the precision that they came in."""
    model = build().bfloat16()
    assert logits(model, [5, 6, 7]).dtype == torch.bfloat16
    x = torch.randn(1, 1, 3, 8).bfloat16()
    assert Rotary(frequencies(8))(x).dtype == torch.bfloat16


def test_first_values() -> None:
    """Of standard deviation 0.02; less where the stream is written, by depth."""
    torch.manual_seed(0)
    model = LanguageModel(Config(8, 128, 256, 4, kv_heads=2, bias=True), 500)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.dim() == 1:
            assert (parameter == 1).all()
        else:
            writes = ".output." in name or ".outer." in name
            wanted = 0.02 / math.sqrt(16) if writes else 0.02
            assert abs(parameter.std().item() / wanted - 1) < 0.05, name


def test_the_first_guess_is_nearly_blind() -> None:
    """Its loss is ln V and half the variance of the scores."""
    torch.manual_seed(0)
    model = LanguageModel(PRESETS["lm-3m"], 1000)
    loss = model.loss(torch.randint(1000, (4, 33))).item()
    assert abs(loss - math.log(1000) - 0.0004 * 192 / 2) < 0.15


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_bytes_of_the_cache(build: Any, kv_heads: int) -> None:
    """By the formula: two, layers, groups, width of a head, words, bytes."""
    model = build(kv_heads=kv_heads).bfloat16()
    with torch.no_grad():
        memory = model.encode(torch.randint(3, VOCAB, (1, 11)), torch.tensor([11]))
        start = torch.tensor([[START]])
        _, state = model.step(start, model.start(memory), memory)
    assert sum(t.nbytes for t in state.values()) == 2 * 2 * kv_heads * 4 * 11 * 2


@pytest.mark.parametrize("words", [0, 4])
def test_several_words_after_a_past_need_a_mask(build: Any, words: int) -> None:
    """Without one each would see the later ones; one word alone sees all."""
    model, ids = build().double(), torch.randint(3, VOCAB, (2, 7))
    with torch.no_grad():
        whole, past = model.read(ids)[0], model.read(ids[:, :words])[1]
        with pytest.raises(ValueError, match="several words after a past"):
            model.read(ids[:, words:], past)
        seen = torch.ones(7, 7).tril().bool()[None, None, words:]
        found = model.read(ids[:, words:], past, seen)[0]
        torch.testing.assert_close(found, whole[:, words:], **CLOSE)
        one = model.read(ids[:, words : words + 1], past)[0]
        torch.testing.assert_close(one[:, 0], whole[:, words], **CLOSE)


# Search and training


def test_search_goes_on_from_prompts(build: Any) -> None:
    """Scores are those of the model without a cache, for greedy, beam and samples."""
    model = build().double()
    assert isinstance(model, StepModel)
    lengths = torch.tensor([5, 1, 3])
    source = torch.randint(3, VOCAB, (3, 5))
    source[torch.arange(5) >= lengths[:, None]] = 0
    searches: Any = (
        (greedy, {}),
        (beam_search, {"beam": 4, "n_best": 3}),
        (sample, {"samples": 3, "generator": torch.Generator().manual_seed(0)}),
    )
    for search, options in searches:
        found = search(model, source, lengths, max_length=8, **options)
        for row, length in enumerate(lengths.tolist()):
            prompt = source[row, :length].tolist()
            for answer in found[row]:
                text = [*prompt, *answer.ids, 2]
                log_p = logits(model, text).log_softmax(-1)[length - 1 : -1]
                words = torch.tensor(text[length:])
                wanted = float(log_p.gather(1, words[:, None]).sum())
                assert abs(answer.log_probability - wanted) < 1e-3


def test_no_weights_of_attention_to_show(build: Any) -> None:
    """Who asks for them is told."""
    with pytest.raises(ValueError, match="attention"):
        greedy(build(), torch.tensor([[5, 6]]), torch.tensor([2]), attention=True)


def test_training_sees_a_language_model(build: Any, still: Any) -> None:
    """The workshop's loss is the model's own, and every weight gets a gradient."""
    batch = make_batch([[5]], [[7, 8, 9, 6]])
    for tied in (True, False):
        model = build(tied=tied, bias=True)
        total, _ = batch_loss(model, batch)
        text = torch.cat([batch.target_in, batch.target_out[:, -1:]], dim=1)
        torch.testing.assert_close(total / 5, model.loss(text))
        assert still(model, batch) == []


def test_it_learns() -> None:
    """Who comes after whom, in a circle of ten."""
    torch.manual_seed(0)
    model = LanguageModel(Config(1, 24, 32, 4, kv_heads=2), 13)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    text = (torch.arange(20) + torch.arange(8)[:, None]) % 10 + 3
    for _ in range(60):
        loss = model.loss(text)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss < 0.3
    ((answer,),) = greedy(
        model, torch.tensor([[3, 4, 5]]), torch.tensor([3]), max_length=6
    )
    assert answer.ids == [6, 7, 8, 9, 10, 11]


# In the encoder and decoder of chapter 4


OLD = TransformerConfig(2, 24, 40, 6, dropout=0.0, norm="pre")
OFF = Config(
    2, 24, 40, 6, positions="sinusoids", kv_heads=6, rope=0.0, gate="none", rms=False,
    bias=True,
)  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {"rms": True},
    {"bias": False},
    {"rope": 10_000.0, "positions": "none"},
    {"gate": "silu"},
    {"kv_heads": 2},
    {
        "rms": True, "bias": False, "rope": 10_000.0, "positions": "none",
        "gate": "silu", "kv_heads": 2,
    },
]  # fmt: skip


def test_everything_off_is_chapter_4() -> None:
    """The same weights, the same names, the same numbers."""
    torch.manual_seed(0)
    old, new = Transformer(OLD, 30).eval(), Transformer(OFF, 30).eval()
    liven(old)
    new.load_state_dict(old.state_dict())
    batch = make_batch([[5, 6, 7, 8], [9, 10]], [[4, 5, 6], [7, 8, 9]])
    with torch.no_grad():
        assert torch.equal(new.features(batch), old.features(batch))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ", ".join(change))
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_one_change_at_a_time(
    stepped: Any, still: Any, change: dict[str, Any], norm: Any
) -> None:
    """Steps are one pass, padding is not seen, attention can be shown, all learns."""
    torch.manual_seed(0)
    config = replace(OFF, norm=norm, **change)
    model = Transformer(config, 30).double().eval()
    liven(model)
    batch = make_batch([[5, 6, 7, 8], [9, 10]], [[4, 5, 6], [7, 8, 9]])
    with torch.no_grad():
        forced = model.output(model.features(batch))
        found, weights = stepped(model, batch)
        torch.testing.assert_close(found, forced, **CLOSE)
        assert weights.shape == (2, 4, 5)
        assert not weights[1, :, 3:].any()
        alone = model.output(model.features(make_batch([[9, 10]], [[7, 8, 9]])))
        torch.testing.assert_close(alone, forced[1:], **CLOSE)
    unmoved = [name for name in still(model, batch) if "key_value.bias" not in name]
    assert unmoved == []


def test_layers_take_their_parts_from_the_config() -> None:
    """A layer of chapter 4 is built with the parts of this one."""
    encoder, decoder = EncoderLayer(SMALL), DecoderLayer(SMALL)
    assert isinstance(encoder.after_own.norm, RMSNorm)
    assert encoder.own.kv_heads == decoder.cross.kv_heads == 2
    assert isinstance(decoder.own.rotary, Rotary)
    assert decoder.cross.rotary is None, "two texts have no distance"
    assert encoder.feed_forward.inner.out_features == 2 * SMALL.d_ff
    names = {name.rpartition(".")[2] for name, _ in Block(SMALL).named_parameters()}
    assert names == {"weight"}, "no biases"


# Errors


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kv_heads": 4}, "kv_heads is 4: give a divisor of heads, 6"),
        ({"kv_heads": 0}, "kv_heads is 0: give 1 or more"),
        ({"gate": "swish"}, "gate is swish: give one of .*silu"),
        ({"norm": "sandwich"}, "norm is sandwich"),
        ({"d_model": 25}, "heads is 6: give a divisor of d_model, 25"),
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0: give 0 to less than 1"),
        ({"activation_dropout": -0.1}, "activation_dropout is -0.1: give 0 to less"),
        ({"rope": -5.0}, "rope is -5.0: give 0 to less than inf"),
        ({"rope": math.nan}, "rope is nan"),
    ],
)
def test_choices_that_are_none(wrong: dict[str, Any], said: str) -> None:
    """Each is named, with what may stand there."""
    from beartype.roar import BeartypeCallHintParamViolation
    from jaxtyping import TypeCheckError

    refused = (ValueError, TypeCheckError, BeartypeCallHintParamViolation)
    with pytest.raises(refused) as error:
        replace(SMALL, **wrong)
    if error.type is ValueError:
        assert error.match(said)


def test_a_head_of_odd_width_cannot_turn() -> None:
    """Its channels make no pairs."""
    with pytest.raises(ValueError, match="a head is 5 wide: pairs need an even width"):
        LanguageModel(Config(1, 20, 16, 4, kv_heads=2), 10)


def test_added_places_and_unequal_prompts(build: Any) -> None:
    """They would stand at wrong places, so they are refused; equal ones are not."""
    model = build(positions="sinusoids", rope=0.0)
    source = torch.tensor([[5, 6, 7], [8, 9, 0]])
    with pytest.raises(ValueError, match="prompts differ in length"):
        model.encode(source, torch.tensor([3, 2]))
    assert model.encode(source, torch.tensor([3, 3]))["last"].tolist() == [7, 0]
