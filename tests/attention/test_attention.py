"""Attention against loops, against torch, and against itself in other company."""

import doctest
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import annotated.attention
from annotated.attention import (
    AdditiveScore,
    AttentionModel,
    Bahdanau,
    Config,
    Encoder,
    Luong,
    ProductScore,
    attend,
    maxout,
    real_words,
)
from annotated.decoding import beam_search, greedy, search_all
from annotated.parallel import Batch, make_batch

SMALL = Config(d_embedding=6, d_hidden=5, d_readout=4, dropout=0.0)
SCORES = ("additive", "dot", "general")
CLOSE = {"rtol": 0.0, "atol": 1e-12}
SOURCES = [[5, 6, 7, 8, 9], [4], [6, 5, 9]]
TARGETS = [[7, 3, 4], [5, 9, 9, 8], [6]]


def build(score: str, dropout: float = 0.0) -> AttentionModel:
    """A small model in double precision, the same each time."""
    torch.manual_seed(0)
    config = replace(SMALL, score=score, dropout=dropout)
    kind = Bahdanau if score == "additive" else Luong
    return kind(config, source_vocab=12, target_vocab=15).double().eval()


@pytest.fixture(params=SCORES)
def model(request: pytest.FixtureRequest) -> AttentionModel:
    """Each model of the chapter."""
    return build(request.param)


@pytest.fixture
def batch() -> Batch:
    """Three pairs of different lengths."""
    return make_batch(SOURCES, TARGETS)


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    names = {"torch": torch}
    result = doctest.testmod(annotated.attention, extraglobs=names)
    assert result.attempted >= 4
    assert result.failed == 0


def test_additive_score_is_the_papers_sum() -> None:
    """The sum v · tanh(W s + U h), unit by unit, in double precision."""
    torch.manual_seed(1)
    score = AdditiveScore(3, 4, 5).double()
    query, states = torch.randn(2, 2, 3).double(), torch.randn(2, 6, 4).double()
    with torch.no_grad():
        found = score(query, score.key(states))
    W, U = score.query.weight.detach(), score.key.weight.detach()
    bias, v = score.key.bias.detach(), score.v.detach()
    for b in range(2):
        for q in range(2):
            for j in range(6):
                total = 0.0
                for k in range(5):
                    inside = float(bias[k])
                    inside += sum(float(W[k, i] * query[b, q, i]) for i in range(3))
                    inside += sum(float(U[k, i] * states[b, j, i]) for i in range(4))
                    total += float(v[k]) * math.tanh(inside)
                assert abs(total - float(found[b, q, j])) < 1e-12


def test_dot_is_scaled_dot_product_attention_without_its_scale() -> None:
    """The library computes the same context."""
    torch.manual_seed(2)
    query, states = torch.randn(3, 7, 12).double(), torch.randn(3, 9, 12).double()
    visible = real_words(torch.tensor([9, 4, 1]), 9)
    score = ProductScore(12, 12, general=False)
    context, _ = attend(score(query, score.key(states)), states, visible)
    mask = visible[:, None]
    theirs = F.scaled_dot_product_attention(
        query, states, states, attn_mask=mask, scale=1.0
    )
    torch.testing.assert_close(context, theirs, **CLOSE)


def test_general_puts_a_matrix_between() -> None:
    """The score is s · W h."""
    torch.manual_seed(3)
    score = ProductScore(4, 6, general=True).double()
    query, states = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 6).double()
    assert isinstance(score.key, torch.nn.Linear)
    expected = torch.einsum("bqd,de,bse->bqs", query, score.key.weight, states)
    torch.testing.assert_close(score(query, score.key(states)), expected, **CLOSE)


def test_dot_refuses_vectors_of_two_widths() -> None:
    """A product needs one space."""
    with pytest.raises(ValueError, match=r"dot: query \(4\) and key \(6\)"):
        ProductScore(4, 6, general=False)


def test_a_word_alone_gets_all_the_weight() -> None:
    """However low its score."""
    score = torch.full((1, 1, 3), 50.0)
    score[..., 0] = -50.0
    states = torch.arange(6.0).view(1, 3, 2)
    context, weight = attend(score, states, real_words(torch.tensor([1]), 3))
    assert weight.tolist() == [[[1.0, 0.0, 0.0]]]
    assert context.tolist() == [[[0.0, 1.0]]]


def test_maxout_keeps_the_larger_of_neighbours() -> None:
    """Of (x, 0) it makes a ReLU, of (x, -x) the absolute value."""
    x = torch.randn(2, 5)
    relu = maxout(torch.stack([x, torch.zeros_like(x)], -1).flatten(-2))
    torch.testing.assert_close(relu, x.relu())
    torch.testing.assert_close(maxout(torch.stack([x, -x], -1).flatten(-2)), x.abs())


def test_encoder_knows_both_sides_and_no_padding() -> None:
    """Alone or beside a longer sentence, and each state sees each word."""
    torch.manual_seed(0)
    encoder = Encoder(SMALL, vocab=12).double().eval()
    batch = make_batch(SOURCES, TARGETS)
    with torch.no_grad():
        states = encoder(batch.source, batch.source_lengths)
        for row, length in enumerate(batch.source_lengths.tolist()):
            one = batch.source[row : row + 1, :length]
            alone = encoder(one, batch.source_lengths[row : row + 1])
            torch.testing.assert_close(states[row, :length], alone[0], **CLOSE)
            assert not states[row, length:].any()
            other = one.clone()
            other[0, 0] = 11
            moved = encoder(other, batch.source_lengths[row : row + 1]) - alone
            assert (moved[0].abs().amax(-1) > 0).all()


def test_steps_are_teacher_forcing(
    model: AttentionModel, batch: Batch, stepped: Any
) -> None:
    """One word at a time gives the logits of all at once."""
    with torch.no_grad():
        forced = model.output(model.features(batch))
    torch.testing.assert_close(stepped(model, batch)[0], forced, **CLOSE)


def test_weights_sum_to_one_and_leave_padding_alone(
    model: AttentionModel, batch: Batch, stepped: Any
) -> None:
    """Every row, in every step."""
    _, weights = stepped(model, batch)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    real = real_words(batch.source_lengths, batch.source.shape[1])
    assert (weights.masked_select(~real[:, None].expand_as(weights)) == 0).all()
    assert (weights.masked_select(real[:, None].expand_as(weights)) > 0).all()


def test_batched_is_single(model: AttentionModel, batch: Batch, stepped: Any) -> None:
    """A sentence does not depend on its neighbours in the batch (pitfall: the mask)."""
    logits, weights = stepped(model, batch)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone, its = stepped(model, make_batch([source], [target]))
        t, s = len(target) + 1, len(source) + 1
        torch.testing.assert_close(logits[row, :t], alone[0], **CLOSE)
        torch.testing.assert_close(weights[row, :t, :s], its[0], **CLOSE)


def test_a_word_changes_nothing_before_it(model: AttentionModel, batch: Batch) -> None:
    """The model does not see the answer."""
    future = batch.target_in.clone()
    future[:, 2] = 11
    with torch.no_grad():
        before = model.features(batch)
        after = model.features(batch._replace(target_in=future))
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


def test_search_in_a_batch_is_search_alone(model: AttentionModel) -> None:
    """Beam and greedy, with the weights that they report."""
    for search in (greedy, beam_search):
        together = search_all(
            model, SOURCES, search=search, progress=False, max_length=8, attention=True
        )
        for source, (best, *_) in zip(SOURCES, together, strict=True):
            ((alone, *_),) = search_all(
                model, [source], search=search, progress=False, max_length=8,
                attention=True,
            )  # fmt: skip
            assert best.ids == alone.ids
            assert best.attention is not None
            assert alone.attention is not None
            width = len(source) + 1
            torch.testing.assert_close(
                best.attention[:, :width], alone.attention[:, :width], **CLOSE
            )


def test_every_parameter_learns(batch: Batch, still: Any) -> None:
    """No part of a model is left without a gradient."""
    for score in SCORES:
        model = build(score)
        assert not still(model, batch), score


def test_dropout_rests_outside_training(batch: Batch) -> None:
    """In training two runs differ, after eval() they agree."""
    for score in SCORES:
        model = build(score, dropout=0.5)
        with torch.no_grad():
            assert torch.equal(model.features(batch), model.features(batch))
            model.train()
            assert not torch.equal(model.features(batch), model.features(batch))


def test_bad_settings_are_refused() -> None:
    """With what is wrong and what to give."""
    for settings, said in (
        ({"score": "cosine"}, "score"),  # the type check speaks first here
        ({"d_hidden": 0}, "d_hidden is 0: give 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: give 0 to less than 1"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            replace(SMALL, **settings)
    with pytest.raises(ValueError, match="this model's is additive"):
        Bahdanau(replace(SMALL, score="dot"), 9, 9)
    with pytest.raises(ValueError, match="give this model dot or general"):
        Luong(SMALL, 9, 9)


def test_only_the_product_score_can_look_all_at_once(batch: Batch) -> None:
    """Bahdanau's memory of hidden units grows with q times source, Luong's does not."""
    additive = AdditiveScore(4, 4, 8)
    query, states = torch.randn(1, 5, 4), torch.randn(1, 6, 4)
    assert additive(query, additive.key(states)).shape == (1, 5, 6)
    one_by_one = [additive(q, additive.key(states)) for q in query.split(1, dim=1)]
    torch.testing.assert_close(
        torch.cat(one_by_one, 1), additive(query, additive.key(states))
    )
