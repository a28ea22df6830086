"""What must hold for every Transformer: invariants, search, sizes, errors, training."""

import doctest
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import annotated.transformer
from annotated.decoding import beam_search, greedy, sample, search_all
from annotated.parallel import Batch, Batches, make_batch
from annotated.subwords import PAD
from annotated.training import Recipe, batch_loss, train
from annotated.transformer import (
    PRESETS,
    Config,
    DecoderLayer,
    MultiHeadAttention,
    Positions,
    Transformer,
    attend,
    causal,
    sinusoids,
)

CLOSE = {"rtol": 0.0, "atol": 1e-12}
few = settings(max_examples=12, deadline=None, derandomize=True)
ids = st.integers(3, 13)
pair = st.tuples(
    st.lists(ids, min_size=1, max_size=6), st.lists(ids, min_size=1, max_size=6)
)
pairs = st.lists(pair, min_size=2, max_size=4)
kinds = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["post", "pre"]),
        "positions": st.sampled_from(["sinusoids", "learned", "none"]),
        "heads": st.sampled_from([1, 2, 4]),
    }
)


def batch_of(some: list[tuple[list[int], list[int]]]) -> Batch:
    """Pairs as a batch."""
    return make_batch([list(s) for s, _ in some], [list(t) for _, t in some])


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    result = doctest.testmod(annotated.transformer, extraglobs={"torch": torch})
    assert result.attempted >= 2
    assert result.failed == 0


# Invariants


@few
@given(kinds, pairs, st.data())
def test_a_future_word_changes_nothing_before_it(
    build: Any, kind: dict[str, Any], some: Any, data: Any
) -> None:
    """And it changes what comes from it on."""
    model, batch = build(**kind), batch_of(some)
    at = data.draw(st.integers(1, batch.target_in.shape[1] - 1))
    other = batch.target_in.clone()
    other[:, at] = (other[:, at] - 2) % 11 + 3
    with torch.no_grad():
        before = model.features(batch)
        after = model.features(batch._replace(target_in=other))
    assert torch.equal(before[:, :at], after[:, :at])
    assert (before[:, at] - after[:, at]).abs().amax(-1).min() > 1e-9


@few
@given(kinds, pairs)
def test_padding_and_order_of_the_batch_change_nothing(
    build: Any, kind: dict[str, Any], some: Any
) -> None:
    """A sentence alone, with more padding, or elsewhere in the batch is the same."""
    model, batch = build(**kind), batch_of(some)
    wide = Batch(
        F.pad(batch.source, (0, 3), value=PAD),
        batch.source_lengths,
        F.pad(batch.target_in, (0, 2), value=PAD),
        F.pad(batch.target_out, (0, 2), value=PAD),
    )
    back = Batch(*(tensor.flip(0) for tensor in batch))
    with torch.no_grad():
        found = model.features(batch)
        padded, turned = model.features(wide), model.features(back)
        torch.testing.assert_close(padded[:, :-2], found, **CLOSE)
        torch.testing.assert_close(turned.flip(0), found, **CLOSE)
        for row, one in enumerate(some):
            alone = model.features(batch_of([one]))[0]
            torch.testing.assert_close(found[row, : len(alone)], alone, **CLOSE)


@few
@given(kinds, st.lists(ids, min_size=3, max_size=6, unique=True))
def test_every_word_sees_every_source_word(
    build: Any, kind: dict[str, Any], source: list[int]
) -> None:
    """The encoder looks both ways: a changed word is felt at each place."""
    model = build(**kind)
    other = [*source[:-1], (source[-1] - 2) % 11 + 3]
    with torch.no_grad():
        one, two = (
            model.encode(batch.source, batch.source_lengths)["source.0"]
            for batch in (make_batch([s], [[5]]) for s in (source, other))
        )
    assert ((one - two).abs().amax((1, 2, 4)) > 1e-9).all()


@few
@given(kinds, st.permutations([4, 5, 6, 7, 7, 9]))
def test_order_is_what_the_positions_say(
    build: Any, kind: dict[str, Any], order: list[int]
) -> None:
    """Without positions a permuted source is a permuted encoder, with them it is not.

    The order of the words is given to ``encode`` as a whole, END wherever it falls.
    """
    model = build(**kind)
    source = torch.tensor([[8, 5, 3, 11, 6, 2]])
    index = torch.tensor(sorted(range(6), key=lambda i: (order[i], i)))
    length = torch.tensor([6])
    with torch.no_grad():
        plain = model.encode(source, length)["source.1"]
        moved = model.encode(source[:, index], length)["source.1"]
    same = torch.allclose(moved, plain[..., index, :], **CLOSE)
    assert same == (kind["positions"] == "none" or index.tolist() == list(range(6)))


@few
@given(kinds, pairs)
def test_cached_is_uncached(
    build: Any, stepped: Any, kind: dict[str, Any], some: Any
) -> None:
    """One word at a time gives the logits of all at once."""
    model, batch = build(**kind), batch_of(some)
    with torch.no_grad():
        forced = model.output(model.features(batch))
    logits, weights = stepped(model, batch)
    torch.testing.assert_close(logits, forced, **CLOSE)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    hidden = torch.arange(batch.source.shape[1]) >= batch.source_lengths[:, None]
    assert not weights.masked_select(hidden[:, None].expand_as(weights)).any()


# Attention as a layer, weights on request


def test_weights_change_nothing(build: Any) -> None:
    """The kernel and the explicit formula, causal, padded and neither."""
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(8, 2).double().eval(), torch.randn(2, 5, 8).double()
    seen = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None]
    for options in ({}, {"is_causal": True}, {"visible": seen}):
        fast, none = layer(x, layer.remember(x), **options)
        slow, weight = layer(x, layer.remember(x), weights=True, **options)
        assert none is None
        assert weight.shape == (2, 2, 5, 5)
        torch.testing.assert_close(fast, slow, **CLOSE)


def test_attention_has_its_own_dropout() -> None:
    """Of the weights, in training, in each attention of a decoder layer; never else."""
    layer = DecoderLayer(Config(1, 8, 12, 2, dropout=0.0, attention_dropout=0.5))
    x = torch.randn(2, 5, 8)
    memory = layer.cross.remember(torch.randn(2, 5, 8))
    for name in ("own", "cross"):
        attention = getattr(layer, name)
        assert attention.dropout == 0.5
        for options in ({}, {"weights": True}):
            attention.train()
            draws = [attention(x, memory, **options)[0] for _ in range(2)]
            assert not torch.allclose(*draws)
            attention.eval()
            draws = [attention(x, memory, **options)[0] for _ in range(2)]
            assert torch.equal(*draws)


def test_a_search_leaves_tensors_that_may_be_changed() -> None:
    """A table grown by a long sentence is broadcast in place between processes."""
    model = Transformer(Config(1, 8, 12, 2, longest=4), 20)
    greedy(model, torch.tensor([[5] * 9]), torch.tensor([9]))
    table = model.positions.table
    assert len(table) > 4
    assert not table.is_inference()


def test_dropout_keeps_the_mean() -> None:
    """What is left is made larger, so that nothing has to be done at decoding."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 8)
    wanted = attend(query, key, value)[0]
    many = [x.expand(4000, 4, 8) for x in (query, key, value)]
    found = attend(*many, p=0.3)[0].mean(0, keepdim=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.06)


def test_causal_shows_the_past_and_the_word_itself() -> None:
    """A triangle."""
    assert causal(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


# Positions


def test_sinusoids_are_the_formula_of_the_paper() -> None:
    """Each pair of channels shares one frequency; odd widths too."""
    for width in (1, 4, 7, 16):
        table = sinusoids(40, width)
        assert table.shape == (40, width)
        for position in (0, 1, 2, 39):
            for channel in range(width):
                angle = position / 10000 ** (channel // 2 * 2 / width)
                wanted = math.cos(angle) if channel % 2 else math.sin(angle)
                assert abs(table[position, channel].item() - wanted) < 1e-6
    two = torch.tensor([0.9093, -0.4161, 0.0200, 0.9998])
    torch.testing.assert_close(sinusoids(3, 4)[2], two, rtol=0, atol=6e-5)


def test_a_shift_is_a_rotation() -> None:
    """The same one for every position: what lets a head look k words back."""
    table, k, width = sinusoids(50, 8).double(), 3, 8
    pairs_ = table.unflatten(1, (4, 2))
    for pair_ in range(4):
        angle = torch.tensor(k / 10000 ** (2 * pair_ / width)).double()
        sin, cos = angle.sin(), angle.cos()
        turn = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
        torch.testing.assert_close(
            pairs_[k:, pair_], pairs_[:-k, pair_] @ turn, rtol=0, atol=1e-6
        )


def test_positions_begin_where_they_are_told(build: Any) -> None:
    """The t-th word of a step has the t-th position; sinusoids know no end."""
    config = Config(1, 8, 12, 2, longest=4)
    for kind in ("sinusoids", "learned", "none"):
        positions = Positions(replace(config, positions=kind))
        zeros = torch.zeros(1, 4, 8)
        whole = positions(zeros)
        assert bool(whole.any()) == (kind != "none")
        parts = [positions(zeros[:, :1], first=t) for t in range(4)]
        assert torch.equal(torch.cat(parts, 1), whole)
    longer = Positions(config)(torch.zeros(1, 11, 8))
    torch.testing.assert_close(longer[0], sinusoids(11, 8))


# Search


def forced(model: Transformer, source: list[int], target: list[int]) -> float:
    """Log-probability of a translation by the uncached model."""
    batch = make_batch([source], [target])
    with torch.no_grad():
        log_p = model.output(model.features(batch)).log_softmax(-1)
    return float(log_p[0].gather(1, batch.target_out[0][:, None]).sum())


def test_search_uses_the_cache_rightly(model: Transformer) -> None:
    """Each score is what the model without a cache says; alone or in a batch."""
    sources = [[5, 6, 7, 8, 9], [4], [6, 5, 9, 3]]
    searches = (
        (greedy, {}),
        (beam_search, {"beam": 4, "n_best": 4}),
        (sample, {"samples": 3, "generator": torch.Generator().manual_seed(0)}),
    )
    for search, options in searches:
        found = search_all(
            model, sources, search=search, progress=False, max_length=9,
            attention=True, **options,
        )  # fmt: skip
        for source, answers in zip(sources, found, strict=True):
            for answer in answers:
                wanted = forced(model, source, answer.ids)
                assert abs(answer.log_probability - wanted) < 1e-4
                weights = answer.attention
                assert weights is not None
                assert weights.shape == (len(answer.ids) + 1, len(source) + 1)
                total = weights.sum(-1)
                torch.testing.assert_close(total, torch.ones_like(total))
            if search is not sample:
                ((alone, *_),) = search_all(
                    model, [source], search=search, progress=False, max_length=9,
                    **options,
                )  # fmt: skip
                assert alone.ids == answers[0].ids


def test_first_word_is_the_likeliest_after_start(model: Transformer) -> None:
    """Start is START and nothing else; PAD and START are never written."""
    sources = [[5, 6, 7, 8, 9], [4], [6, 5, 9, 3]]
    found = search_all(model, sources, search=greedy, progress=False, max_length=1)
    for source, (answer,) in zip(sources, found, strict=True):
        batch = make_batch([source], [[3]])
        with torch.no_grad():
            logits = model.output(model.features(batch))[0, 0]
        logits[:2] = -math.inf
        best = int(logits.argmax())
        assert answer.ids == ([] if best == 2 else [best])


def test_a_step_reads_one_word(model: Transformer, batch: Batch) -> None:
    """Neither the words before it nor the source are read again."""
    memory = model.encode(batch.source, batch.source_lengths)
    state, rows = model.start(memory), []
    handles = [
        module.register_forward_hook(lambda _, x, __: rows.append(x[0].shape))
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for token in batch.target_in.split(1, dim=1):
        rows.clear()
        _, state = model.step(token, state, memory)
        sizes = [math.prod(shape[:-1]) for shape in rows]
        assert set(sizes) == {len(batch.source)}
        # query, keys and values, output; query, output; two layers; the vocabulary
        assert len(sizes) == 7 * model.config.layers + 1
    for handle in handles:
        handle.remove()


# Sizes


def formula(c: Config, vocab: int) -> int:
    """Weights of a Transformer with one vocabulary."""
    d = c.d_model
    attention = 4 * d * d + 4 * d
    between = 2 * d * c.d_ff + c.d_ff + d
    norm = 2 * d
    layer = 3 * attention + 2 * between + 5 * norm
    return vocab * d + c.layers * layer + (2 * norm if c.norm == "pre" else 0)


SIZES = {"tiny": 2_605_056, "small": 9_932_800, "base": 49_258_496, "big": 186_597_376}


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_by_formula(name: str) -> None:
    """As many weights as the formula says, with 10,000 words."""
    for norm in ("post", "pre"):
        config = replace(PRESETS[name], norm=norm)
        with torch.device("meta"):
            model = Transformer(config, 10_000)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == formula(config, 10_000)
        assert len(set(map(id, model.parameters()))) == len(list(model.parameters()))
    assert formula(PRESETS[name], 10_000) == SIZES[name]


def test_base_is_the_papers() -> None:
    """Table 3 prints 65 and 213 million, for about 37,000 subwords."""
    assert round(formula(PRESETS["base"], 37_000) / 1e6) == 63
    assert round(formula(PRESETS["big"], 37_000) / 1e6) == 214


def test_layers_have_weights_of_their_own(build: Any, still: Any) -> None:
    """And every one of them learns."""
    for kind in ({}, {"norm": "pre"}, {"positions": "learned"}):
        model = build(**kind)
        first, second = (dict(stack.named_parameters()) for stack in model.decoder)
        assert not any(torch.equal(first[n], second[n]) for n in first)
        batch = make_batch([[5, 6, 7], [8]], [[4, 5], [6, 7, 8]])
        assert not still(model, batch), kind


def test_embedding_and_output_are_one_matrix(build: Any) -> None:
    """Scaled by the root of the width on the way in only, once."""
    model = build(layers=1, positions="none")
    table = model.output.weight
    words = model.embed(torch.tensor([[3, 5]]))
    torch.testing.assert_close(words[0], table[[3, 5]] * math.sqrt(8), **CLOSE)
    torch.manual_seed(0)
    fresh = Transformer(Config(1, 256, 8, 4, dropout=0.0), 500)
    words = fresh.embed(torch.arange(500)[None])
    spread = (words - fresh.positions(torch.zeros(1, 500, 256))).std()
    assert abs(spread.item() - 1) < 0.05


# Errors


def test_bad_settings_are_refused(build: Any) -> None:
    """With what is wrong and what to give."""
    with pytest.raises(ValueError, match=r"10.*multiple of.*4"):
        Transformer(Config(1, 10, 8, 4), 9)
    short = build(positions="learned", longest=5)
    short.features(make_batch([[4] * 4], [[5] * 4]))
    with pytest.raises(ValueError, match="5 places are learned"):
        short.features(make_batch([[4] * 5], [[5]]))
    build(longest=5).features(make_batch([[4] * 50], [[5]]))


def test_shapes_are_checked() -> None:
    """A key of another width stops with a word about it."""
    query, key = torch.zeros(2, 3, 4), torch.zeros(2, 5, 6)
    with pytest.raises(Exception, match="attend"):
        attend(query, key, torch.zeros(2, 5, 6))
    layer = MultiHeadAttention(8, 2)
    with pytest.raises(Exception, match=r"remember|forward"):
        layer(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))


# Compiled, and trained

COMPILED = """
import torch
from annotated.parallel import make_batch
from annotated.transformer import Config, Transformer

for norm in ("post", "pre"):
    torch.manual_seed(0)
    model = Transformer(Config(2, 8, 12, 2, 0.0, norm), 14).train()
    batch = make_batch([[5, 6, 7], [8]], [[4, 5], [6, 7, 8]])
    fast = torch.compile(model.features, backend="aot_eager", fullgraph=True)
    loss = model.output(fast(batch)).logsumexp(-1).sum()
    loss.backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model.output(model.features(batch)).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-5)

    rates = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.1}
    model = Transformer(Config(2, 8, 12, 2, norm=norm, **rates), 14).train()
    fast = torch.compile(model.features, backend="aot_eager", fullgraph=True)
    model.output(fast(batch)).logsumexp(-1).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
print("one graph")
"""


def test_compiles_into_one_graph(alone: Callable[..., str]) -> None:
    """A graph break in training would be an error, and the gradients are the same.

    With dropout in all of its places too. In a process of its own, where no call is
    checked for its shapes.
    """
    assert alone("-c", COMPILED) == "one graph"


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_cuda_computes_what_the_cpu_does(build: Any, batch: Batch, norm: str) -> None:
    """Features, gradients and steps in 64 bits; 16 bits compiled are near."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    here, there = build(norm=norm), build(norm=norm).cuda()
    sent = batch.to(torch.device("cuda"))
    wanted, found = here.features(batch), there.features(sent)
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-10)
    for model, features in ((here, wanted), (there, found)):
        model.output(features).logsumexp(-1).sum().backward()
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.grad.cpu(), one.grad, rtol=0, atol=1e-10)
    sources = [[5, 6, 7], [8]]
    answers = [
        search_all(model, sources, device=device, progress=False)
        for model, device in ((here, "cpu"), (there, "cuda"))
    ]
    assert [a[0].ids for a in answers[0]] == [a[0].ids for a in answers[1]]
    fast = torch.compile(there.float().train().features)
    with torch.autocast("cuda", torch.bfloat16):
        near = fast(sent)
        near.float().logsumexp(-1).sum().backward()
    torch.testing.assert_close(near.double().cpu(), wanted, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_learns(norm: Any) -> None:
    """A tiny one learns a few pairs by heart: each target is its source, turned."""
    chance = random.Random(0)
    rows = [
        [chance.randrange(3, 14) for _ in range(chance.randint(2, 6))]
        for _ in range(24)
    ]
    torch.manual_seed(0)
    model = Transformer(Config(2, 32, 64, 4, 0.0, norm), 14)
    batches = Batches(rows, [row[::-1] for row in rows], tokens=200)
    recipe = Recipe(
        updates=120, learning_rate=4e-3, schedule="linear", warmup=20, smoothing=0.0
    )
    train(model, batches, recipe, progress=False)
    found = search_all(model, rows, progress=False)
    right = sum(a[0].ids == row[::-1] for a, row in zip(found, rows, strict=True))
    assert right >= 23


def test_a_model_that_is_sure_has_a_finite_loss(build: Any, batch: Batch) -> None:
    """Smoothing asks for the logarithm of each probability; none of them is zero."""
    model = build().float()
    with torch.no_grad():
        model.output.weight.mul_(1e4)
    loss, _ = batch_loss(model, batch, smoothing=0.1)
    logits = model.output(model.features(batch)).flatten(0, 1)
    wanted = F.cross_entropy(
        logits, batch.target_out.flatten(), ignore_index=PAD, label_smoothing=0.1
    )
    assert loss.isfinite()
    torch.testing.assert_close(loss / batch.tokens, wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_passes_that_agree_are_one(
    build: Any, batch: Batch, precision: str
) -> None:
    """R-Drop without dropout is the plain loss; with dropout it is more."""
    model = build().float()
    plain = batch_loss(model, batch, 0.1, precision)
    torch.testing.assert_close(batch_loss(model, batch, 0.1, precision, 5.0), plain)
    noisy = build(dropout=0.3).float().train()
    losses = []
    for weight in (1e-9, 5.0):
        torch.manual_seed(3)
        losses.append(batch_loss(noisy, batch, 0.1, precision, weight)[0].item())
    assert losses[1] > losses[0] + 0.01


def test_dropout_rests_outside_training(build: Any, batch: Batch) -> None:
    """In training two runs differ, after eval() they agree."""
    model = build(dropout=0.5)
    with torch.no_grad():
        assert torch.equal(model.features(batch), model.features(batch))
        model.train()
        assert not torch.equal(model.features(batch), model.features(batch))


def features_at(model: Transformer, batch: Batch) -> Tensor:
    """Features with no gradient."""
    with torch.no_grad():
        return model.features(batch)


def test_half_the_precision_is_the_same_model(model: Transformer, batch: Batch) -> None:
    """bfloat16 and single precision stay near double."""
    wanted = features_at(model, batch)
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.2)):
        found = features_at(model.to(dtype), batch)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=atol)
