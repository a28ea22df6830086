"""Batches: complete, small enough, alike in length, and the same when asked again."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from annotated.data import DataError
from annotated.parallel import (
    Batch,
    Batches,
    RedrawnBatches,
    by_length,
    cut,
    make_batch,
    parallel_lines,
)
from annotated.subwords import END, PAD, START, BPEDropout, Subwords

Ids = list[list[int]]


def captions(n: int, seed: int = 0, mean: float = 13) -> tuple[Ids, Ids]:
    """Ids of sentences with lengths as captions have them."""
    chance = np.random.default_rng(seed)
    source = np.clip(chance.gamma(9, mean / 9, n), 2, 80).astype(int)
    target = np.clip(source * chance.normal(1.05, 0.15, n), 2, 80).astype(int)
    return [[3 + i % 7] * s for i, s in enumerate(source)], [[4] * t for t in target]


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal to the last id."""
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_a_batch_by_hand() -> None:
    batch = make_batch([[11, 12, 13], [14]], [[21], [22, 23]])
    assert batch.source.tolist() == [[11, 12, 13, END], [14, END, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.target_in.tolist() == [[START, 21, PAD], [START, 22, 23]]
    assert batch.target_out.tolist() == [[21, END, PAD], [22, 23, END]]
    assert batch.tokens == 5
    assert all(tensor.dtype == torch.int64 for tensor in batch)
    assert same(batch.to("cpu"), batch)


sentences = st.lists(st.integers(3, 99), max_size=12)


@given(
    pairs=st.lists(st.tuples(sentences, sentences), min_size=1, max_size=40),
    tokens=st.integers(13, 60),
    pool=st.integers(1, 50),
    shuffle=st.booleans(),
)
def test_each_pair_is_there_once_and_no_batch_too_large(
    pairs: list[tuple[list[int], list[int]]], tokens: int, pool: int, shuffle: bool
) -> None:
    sources, targets = [one for one, _ in pairs], [other for _, other in pairs]
    batches = Batches(sources, targets, tokens, 0, pool, shuffle)
    found, places = [], 0
    for batch in batches.epoch(3):
        places += batch.source.numel() + batch.target_in.numel()
        assert max(batch.source.numel(), batch.target_in.numel()) <= tokens
        assert batch.source_lengths.tolist() == (batch.source != PAD).sum(1).tolist()
        rows = zip(batch.source, batch.target_in, batch.target_out, strict=True)
        for source, before, after in rows:
            one, other = source[source != PAD], after[after != PAD]
            assert one[-1] == END and other[-1] == END
            assert before[before != PAD].tolist() == [START, *other[:-1].tolist()]
            found.append((one[:-1].tolist(), other[:-1].tolist()))
    assert sorted(found) == sorted(pairs)
    real = sum(len(one) + len(other) + 2 for one, other in pairs)
    assert batches.padding(3) == pytest.approx(1 - real / places)


def test_batches_are_filled_as_far_as_the_next_sentence_allows() -> None:
    lengths = np.array([3, 4, 4, 5, 9])
    assert cut(np.arange(5), lengths, 12) == [[0, 1, 2], [3], [4]]
    assert cut(np.arange(5), lengths, 45) == [[0, 1, 2, 3, 4]]


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    sources, targets = captions(2_000)
    one, other = (Batches(sources, targets, 512, seed=7, pool=600) for _ in range(2))
    assert one.plan(4) == other.plan(4)
    assert one.plan(4) != one.plan(5)
    assert one.plan(4) != Batches(sources, targets, 512, seed=8, pool=600).plan(4)
    list(other.epoch(0))  # having read another epoch changes nothing
    assert one.plan(4) == other.plan(4)
    assert one.plan(0) == Batches(sources, targets, 512, seed=7, pool=600).plan()


@pytest.mark.parametrize("start", [0, 1, 17, 10_000])
def test_resumes_in_the_middle_of_an_epoch(start: int) -> None:
    sources, targets = captions(2_000)
    whole = list(Batches(sources, targets, 512).epoch(2))
    rest = list(Batches(sources, targets, 512).epoch(2, start=start))
    assert len(rest) == max(0, len(whole) - start)
    assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_without_shuffling_each_epoch_is_the_same_from_short_to_long() -> None:
    sources, targets = captions(2_000)
    batches = Batches(sources, targets, 512, shuffle=False)
    assert batches.plan(0) == batches.plan(1)
    widths = [batches.target_lengths[rows].mean() for rows in batches.plan()]
    assert widths[0] == min(widths) and widths[-1] > 3 * widths[0]


def test_shuffling_mixes_short_and_long() -> None:
    batches = Batches(*captions(5_000), 512)
    first, *_ = np.array_split([len(rows) for rows in batches.plan()], 4)
    everything = [len(rows) for rows in batches.plan()]
    assert abs(np.mean(first) - np.mean(everything)) < np.std(everything) / 2


@pytest.mark.parametrize("tokens", [1024, 2048, 4096])
@pytest.mark.parametrize("mean", [8, 13, 25])
def test_padding_is_below_five_per_cent(mean: float, tokens: int) -> None:
    sources, targets = captions(29_000, mean=mean)
    batches = Batches(sources, targets, tokens)
    assert batches.padding() < 0.05
    longer = np.maximum(batches.source_lengths, batches.target_lengths)
    assert all(len(rows) * longer[rows].max() <= tokens for rows in batches.plan())


@pytest.mark.parametrize("pair", ["en-de", "en-fr"])
def test_padding_is_below_five_per_cent_on_multi30k(pair: str, data: object) -> None:
    sources, targets = parallel_lines("multi30k", pair, "train")
    words = [[[3] * len(line.split()) for line in side] for side in (sources, targets)]
    assert Batches(words[0], words[1], 4096).padding() < 0.05
    tokenizer = Subwords.learn([*sources, *targets], 8000, progress=False)
    ids = tokenizer.encode_all(sources), tokenizer.encode_all(targets)
    for tokens in (1024, 2048, 4096):
        assert Batches(*ids, tokens).padding() < 0.05


def test_turning_beats_sorting_by_target_then_source() -> None:
    sources, targets = captions(29_000)
    source, target = (
        np.array([len(ids) for ids in side]) for side in (sources, targets)
    )
    turning, lexical = by_length(source, target), np.lexsort((source, target))
    longer = np.maximum(source, target)

    def padded(order: np.ndarray) -> int:
        batches = cut(order, longer, 4096)
        return sum(len(b) * int(source[b].max() + target[b].max()) for b in batches)

    assert padded(turning) < padded(lexical)


def test_planning_is_fast() -> None:
    batches = Batches(*captions(29_000))
    times = []
    for epoch in range(5):
        start = time.perf_counter()
        batches.plan(epoch)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


TEXT = [f"the {n}th widest newest lowest tower" for n in range(50)]


def redrawn(tokens: int = 200, seed: int = 0) -> RedrawnBatches:
    """The text with itself, cut anew each epoch."""
    subwords = Subwords.learn(TEXT, 300, progress=False)
    one, other = (BPEDropout(subwords, TEXT, 0.3, n, progress=False) for n in (0, 1))
    return RedrawnBatches(one, other, tokens, seed)


def test_redrawn_batches_are_a_function_of_seed_and_epoch() -> None:
    whole = list(redrawn().epoch(2))
    for start in (0, 1, len(whole) - 1):
        rest = list(redrawn().epoch(2, start))
        assert all(map(same, rest, whole[start:])) and len(rest) == len(whole) - start
    for other in (redrawn().epoch(3), redrawn(seed=1).epoch(2)):
        assert not all(map(same, other, whole))
    assert sum(len(batch.source) for batch in whole) == len(TEXT)
    assert max(b.source.numel() for b in whole) <= 200


def test_redrawn_batches_refuse_before_the_first_epoch() -> None:
    """A sentence that only some cut makes too long is not found in the night."""
    with pytest.raises(DataError, match="a batch holds 20"):
        redrawn(tokens=20)
    subwords = Subwords.learn(TEXT, 300, progress=False)
    fewer = BPEDropout(subwords, TEXT[1:], 0.3, progress=False)
    with pytest.raises(DataError, match="50 sentences and 49 translations"):
        RedrawnBatches(redrawn().sources, fewer, 200)
