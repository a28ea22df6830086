"""The encoder-decoder against torch, against itself alone, and against its steps."""

import doctest
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import annotated.seq2seq
from annotated.decoding import beam_search, greedy
from annotated.parallel import Batch, make_batch
from annotated.seq2seq import (
    Config,
    Encoder,
    Seq2Seq,
    gru_step,
    lstm_step,
    make_net,
    named,
    reversed_within,
    rnn_step,
    unnamed,
)
from annotated.subwords import PAD

CLOSE = {"rtol": 0.0, "atol": 1e-12}
SMALL = Config("gru", d_embedding=5, d_hidden=6, layers=1, dropout=0.0)
CONFIGS = {
    "gru": SMALL,
    "cho": replace(SMALL, feed=True),
    "lstm": replace(SMALL, cell="lstm", layers=2),
    "sutskever": replace(SMALL, cell="lstm", layers=2, reverse=True),
    "all": replace(SMALL, cell="lstm", layers=3, reverse=True, feed=True),
}
SOURCES = [[5, 6, 7, 8, 9], [4], [6, 5, 9]]
TARGETS = [[7, 3, 4], [5, 9, 9, 8], [6]]


def build(config: Config) -> Seq2Seq:
    """A small model in double precision, the same each time."""
    torch.manual_seed(0)
    return Seq2Seq(config, source_vocab=12, target_vocab=15).double().eval()


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    """Each kind of model."""
    return build(CONFIGS[request.param])


@pytest.fixture
def batch() -> Batch:
    """Three pairs of different lengths."""
    return make_batch(SOURCES, TARGETS)


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    result = doctest.testmod(annotated.seq2seq, extraglobs={"torch": torch})
    assert result.attempted > 6 and result.failed == 0


def random_inputs(*widths: int) -> list[Tensor]:
    """Three rows of random numbers for each width, with gradients."""
    return [torch.randn(3, n, dtype=torch.float64, requires_grad=True) for n in widths]


def assert_same_gradients(
    ours: Tensor, theirs: Tensor, inputs: list[Tensor], cell: nn.Module
) -> None:
    """Values and gradients of inputs and weights agree to 12 decimals."""
    torch.testing.assert_close(ours, theirs, **CLOSE)
    wanted = [*inputs, *cell.parameters()]
    mix = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    pairs = zip(
        torch.autograd.grad((ours * mix).sum(), wanted),
        torch.autograd.grad((theirs * mix).sum(), wanted),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, **CLOSE)


def test_rnn_step_is_torchs() -> None:
    """Equation 1."""
    cell, (x, h) = nn.RNNCell(4, 6).double(), random_inputs(4, 6)
    ours = rnn_step(x, h, cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
    assert_same_gradients(ours, cell(x, h), [x, h], cell)


def test_lstm_step_is_torchs() -> None:
    """Equation 3."""
    cell, (x, h, c) = nn.LSTMCell(4, 6).double(), random_inputs(4, 6, 6)
    bias = cell.bias_ih + cell.bias_hh
    ours = torch.cat(lstm_step(x, h, c, cell.weight_ih, cell.weight_hh, bias))
    assert_same_gradients(ours, torch.cat(cell(x, (h, c))), [x, h, c], cell)


def test_gru_step_is_torchs() -> None:
    """Equation 4."""
    cell, (x, h) = nn.GRUCell(4, 6).double(), random_inputs(4, 6)
    weights = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    assert_same_gradients(gru_step(x, h, *weights), cell(x, h), [x, h], cell)


def test_a_sentences_vector_is_that_of_our_own_cells() -> None:
    """The encoder reads as `gru_step` does, word by word, END included."""
    model = build(SMALL)
    net, h = model.encoder, torch.zeros(1, 6, dtype=torch.float64)
    single = make_batch([[5, 6, 7]], [[3]])
    for word in model.source_embedding(single.source[0]):
        weights = net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0
        h = gru_step(word[None], h, *weights)
    found = model.encode(single.source, single.source_lengths)["h"]
    torch.testing.assert_close(found[:, 0], h, **CLOSE)


def test_a_reversed_sentence_is_read_backwards() -> None:
    """Reversing is the same as giving the sentence backwards, END first."""
    forward, backward = build(SMALL), build(replace(SMALL, reverse=True))
    source = torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0]])
    mirrored = torch.tensor([[2, 7, 6, 5], [2, 8, 0, 0]])
    lengths = torch.tensor([4, 2])
    ours = backward.encode(source, lengths)["h"]
    torch.testing.assert_close(ours, forward.encode(mirrored, lengths)["h"], **CLOSE)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1))
def test_reversing_leaves_the_padding_where_it_is(rows: list[list[int]]) -> None:
    """Each row's words are reversed; what follows them is padding, as before."""
    width = max(map(len, rows))
    padded = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    expected = [row[::-1] + [PAD] * (width - len(row)) for row in rows]
    found = reversed_within(padded, lengths)
    assert found.tolist() == expected
    assert reversed_within(found, lengths).equal(padded)


def test_in_a_batch_as_alone(model: Seq2Seq, batch: Batch) -> None:
    """Vectors and scores of a sentence do not depend on its company."""
    memory = model.encode(batch.source, batch.source_lengths)
    together = model.output(model.features(batch))
    for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        single = make_batch([source], [target])
        alone = model.encode(single.source, single.source_lengths)
        for name, part in alone.items():
            torch.testing.assert_close(memory[name][i : i + 1], part, **CLOSE)
        logits = model.output(model.features(single))[0]
        torch.testing.assert_close(together[i, : len(logits)], logits, **CLOSE)


def test_more_padding_changes_nothing(model: Seq2Seq, batch: Batch) -> None:
    """Empty places behind the longest sentence leave no trace."""
    wider = batch._replace(source=nn.functional.pad(batch.source, (0, 3), value=PAD))
    ours, theirs = model.features(batch), model.features(wider)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_what_stands_in_the_padding_is_never_read(model: Seq2Seq, batch: Batch) -> None:
    """Even words, put where the padding was."""
    place = torch.arange(batch.source.shape[1])
    outside = place >= batch.source_lengths[:, None]
    spoiled = batch._replace(source=batch.source.masked_fill(outside, 11))
    torch.testing.assert_close(model.features(batch), model.features(spoiled), **CLOSE)


def test_step_by_step_as_all_at_once(model: Seq2Seq, batch: Batch) -> None:
    """Feeding the right words one at a time gives teacher forcing's scores."""
    memory = model.encode(batch.source, batch.source_lengths)
    state, found = model.start(memory), []
    for token in batch.target_in.split(1, dim=1):
        logits, state = model.step(token, state, memory)
        found.append(logits)
    expected = model.output(model.features(batch))
    torch.testing.assert_close(torch.cat(found, 1), expected, **CLOSE)


def test_hypotheses_of_a_beam_are_independent(model: Seq2Seq, batch: Batch) -> None:
    """A step of three paths is three steps of one path."""
    memory = model.encode(batch.source, batch.source_lengths)
    start = model.start(memory)
    words = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]])
    wide = {name: part.expand(-1, 3, -1, -1) for name, part in start.items()}
    logits, state = model.step(words, wide, memory)
    for path in range(3):
        single, after = model.step(words[:, path : path + 1], start, memory)
        torch.testing.assert_close(logits[:, path : path + 1], single, **CLOSE)
        for name, part in after.items():
            torch.testing.assert_close(state[name][:, path : path + 1], part, **CLOSE)


def test_a_later_word_changes_no_earlier_score(model: Seq2Seq, batch: Batch) -> None:
    """The target is shifted: the scores at a place do not know its word."""
    changed = batch.target_in.clone()
    changed[:, 2:] = 14
    before = model.features(batch)[:, :2]
    after = model.features(batch._replace(target_in=changed))[:, :2]
    torch.testing.assert_close(before, after, **CLOSE)


def test_each_word_of_the_source_matters(model: Seq2Seq, batch: Batch) -> None:
    """The vector depends on the first and on the last word."""
    vector = model.encode(batch.source, batch.source_lengths)["h"]
    for place in (0, 4):
        other = batch.source.clone()
        other[0, place] = 10
        changed = model.encode(other, batch.source_lengths)["h"]
        assert not torch.allclose(changed[0], vector[0])
        torch.testing.assert_close(changed[1:], vector[1:], **CLOSE)


def test_the_decoder_is_searched(model: Seq2Seq, batch: Batch) -> None:
    """Greedy and a beam of one agree; log-probabilities are the model's own."""
    first = greedy(model, batch.source, batch.source_lengths)
    second = beam_search(model, batch.source, batch.source_lengths, beam=1)
    for (a,), (b,), source in zip(first, second, SOURCES, strict=True):
        assert a.ids == b.ids
        if len(a.ids) < 2 * (len(source) + 1) + 10:
            single = make_batch([source], [a.ids])
            log_p = model.output(model.features(single)).log_softmax(-1)
            own = log_p.gather(-1, single.target_out[..., None]).sum().item()
            assert a.log_probability == pytest.approx(own, abs=1e-5)


def test_all_weights_learn(model: Seq2Seq, batch: Batch) -> None:
    """Each parameter gets a gradient."""
    logits = model.output(model.features(batch))
    real = batch.target_out != PAD
    nn.functional.cross_entropy(logits[real], batch.target_out[real]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_few_sentences_are_learned_by_heart() -> None:
    """The whole thing trains: three pairs, until greedy search returns them."""
    torch.manual_seed(0)
    model = Seq2Seq(replace(SMALL, d_hidden=16), source_vocab=12, target_vocab=15)
    batch = make_batch(SOURCES, TARGETS)
    real = batch.target_out != PAD
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        logits = model.output(model.features(batch))[real]
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, batch.target_out[real]).backward()
        optimizer.step()
    found = greedy(model, batch.source, batch.source_lengths)
    assert [best[0].ids for best in found] == TARGETS


def test_states_go_there_and_back() -> None:
    """`unnamed` undoes `named`, for a tensor and for a pair."""
    h, c = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(unnamed(named(h)), h)
    assert all(a.equal(b) for a, b in zip(unnamed(named((h, c))), (h, c), strict=True))
    assert named((h, c))["c"].shape == (3, 2, 4)


def test_one_layer_needs_no_dropout_between_layers() -> None:
    """Torch warns about it, and warnings are errors here."""
    assert make_net(replace(SMALL, dropout=0.5), 5).dropout == 0.0
    assert make_net(replace(SMALL, layers=2, dropout=0.5), 5).dropout == 0.5


def test_dropout_rests_outside_training() -> None:
    """In training two readings differ, in use they do not."""
    batch = make_batch(SOURCES, TARGETS)
    model = build(replace(SMALL, dropout=0.5))
    torch.testing.assert_close(model.features(batch), model.features(batch), **CLOSE)
    model.train()
    assert not torch.equal(model.features(batch), model.features(batch))


@pytest.mark.parametrize(
    "wrong",
    [
        {"d_embedding": 0},
        {"d_hidden": -1},
        {"layers": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, object]) -> None:
    """The message says which setting, what it is and what to give."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*: give"):
        replace(SMALL, **wrong)


def test_encoder_and_whole_model_read_alike() -> None:
    """A Seq2Seq is an Encoder that also writes."""
    model, alone = build(SMALL), Encoder(SMALL, 12).double()
    alone.load_state_dict(
        {
            k: v
            for k, v in model.state_dict().items()
            if "source" in k or k.startswith("encoder")
        }
    )
    batch = make_batch(SOURCES, TARGETS)
    ours = model.encode(batch.source, batch.source_lengths)["h"]
    theirs = alone.encode(batch.source, batch.source_lengths)["h"]
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_an_unknown_cell_is_refused() -> None:
    """By the settings, or before that by the types."""
    with pytest.raises((ValueError, TypeError), match="cell"):
        replace(SMALL, cell="rnn")
