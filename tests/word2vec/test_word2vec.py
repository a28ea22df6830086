"""Word2Vec against things that know nothing of it: autograd, enumeration, gensim."""

import itertools
import math
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from annotated.data import (
    BOUNDARY,
    DataError,
    Vocabulary,
    count_words,
    encode,
    little_world,
    little_world_analogies,
)
from annotated.word2vec import (
    CALM,
    GROUP,
    MODELS,
    NOISE,
    Batch,
    Config,
    Run,
    State,
    Vectors,
    add_overlaps,
    analogy,
    analogy_score,
    calm_rates,
    draw_noise,
    first_state,
    full_softmax_loss,
    hierarchical_log_probability,
    huffman_codes,
    huffman_tree,
    keep_probability,
    load_state,
    load_vectors,
    make_batches,
    neighbors,
    noise_cdf,
    read_pairs,
    read_questions,
    save_state,
    save_vectors,
    similarity_score,
    thin,
    train,
)

few = settings(max_examples=15, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    """Random numbers of the test's own."""
    return torch.Generator().manual_seed(seed)


# Batches


def numbered_text(lengths: list[int]) -> Tensor:
    """Sentences of these lengths in which each word is the number of its place."""
    numbers = iter(range(sum(lengths)))
    sentences = [[*itertools.islice(numbers, n), BOUNDARY] for n in lengths]
    return torch.tensor(sum(sentences, []), dtype=torch.int32)


def batches_of(
    text: Tensor, config: Config, seed: int = 0, rate: float = 0.025
) -> list[Batch]:
    """The batches of a text in which no word is dropped."""
    words = int(text.max()) + 1
    cdf = noise_cdf(torch.ones(words, dtype=torch.long), 0.75)
    keep, random = torch.ones(words), generator(seed)
    return list(make_batches(text, keep, cdf, config, rate, random))


def pairs_of(batch: Batch) -> list[tuple[int, int]]:
    """Centre and context of each true pair of a batch."""
    block = batch.near.shape[1]
    return [
        (int(batch.center[b * block + row]), int(batch.context[b * block + column]))
        for b, row, column in batch.near.nonzero().tolist()
    ]


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=8)
windows = st.integers(1, 8)


@few
@given(lengths=lengths, window=windows, seed=st.integers(0, 99))
def test_pairs_are_those_of_an_enumeration(
    lengths: list[int], window: int, seed: int
) -> None:
    """Each centre meets all words of its sentence within its reach, once, no others."""
    config = Config(dim=4, window=window, batch=GROUP)
    batches = batches_of(numbered_text(lengths), config, seed)
    found = [pair for batch in batches for pair in pairs_of(batch)]
    assert len(found) == len(set(found))
    contexts: dict[int, set[int]] = {}
    for center, context in found:
        contexts.setdefault(center, set()).add(context)
    start = 0
    for length in lengths:
        sentence = range(start, start + length)
        for center in sentence:
            seen = contexts.pop(center, set())
            reach = max((abs(center - word) for word in seen), default=1)
            assert reach <= window
            assert seen == {w for w in sentence if 0 < abs(center - w) <= reach}
        start += length
    assert not contexts


@few
@given(lengths=lengths, window=windows, model=st.sampled_from(list(MODELS)))
def test_noise_pairs_stand_for_as_many_as_asked(
    lengths: list[int], window: int, model: str
) -> None:
    """The weights of a centre's noise add up to k for each of its true pairs."""
    config = Config(dim=4, window=window, batch=GROUP, negatives=7, model=model)
    for batch in batches_of(numbered_text(lengths), config):
        pairs = batch.near.sum(-1).flatten()
        pairs = pairs if model == "skip-gram" else pairs.clamp(max=1)
        torch.testing.assert_close(batch.weight.flatten() * NOISE, 7 * pairs)


def test_reach_is_uniform() -> None:
    """In the middle of a long sentence each reach from 1 to the window is as likely."""
    text = numbered_text([20_000])
    [*batches] = batches_of(text, Config(dim=4, window=5, batch=GROUP))
    found = torch.cat([batch.near.sum(-1).flatten() for batch in batches])
    reach = (found[10:19_990] / 2).long()
    assert chisquare(torch.bincount(reach, minlength=6)[1:]).pvalue > 1e-3


@few
@given(window=windows, blocks=st.integers(1, 5), dim=st.integers(1, 4))
def test_add_overlaps_is_the_transpose_of_unfold(
    window: int, blocks: int, dim: int
) -> None:
    """<unfold x, y> = <x, add_overlaps y> for all x and y."""
    block = Config(window=window).block
    span = block + 2 * window
    x = torch.randn(blocks * block + 2 * window, dim, dtype=torch.float64)
    y = torch.randn(blocks, span, dim, dtype=torch.float64)
    left = (x.unfold(0, span, block).mT * y).sum()
    torch.testing.assert_close(left, (x * add_overlaps(y, block)).sum())


# Gradients


@few
@given(
    lengths=lengths,
    window=windows,
    model=st.sampled_from(list(MODELS)),
    seed=st.integers(0, 99),
)
def test_step_is_gradient_descent(
    lengths: list[int], window: int, model: str, seed: int
) -> None:
    """A step is minus rate times what autograd says of the loss, row by row."""
    torch.manual_seed(seed)
    config = Config(dim=5, window=window, batch=GROUP, model=model)
    text = numbered_text(lengths) % 23
    text[text == BOUNDARY % 23] = BOUNDARY
    batch = batches_of(text, config, seed)[0]
    rates = torch.rand(2, 23, dtype=torch.float64)
    here, there = rates if model == "skip-gram" else rates.flip(0)
    batch = batch._replace(
        near=batch.near.double(),
        weight=batch.weight.double(),
        rates=(
            here[batch.center],
            there[batch.context],
            rates[1][batch.noise.view(-1)],
        ),
    )
    loss, step = MODELS[model]
    before = [torch.randn(23, 5, dtype=torch.float64) for _ in range(2)]
    leaves = [matrix.clone().requires_grad_() for matrix in before]
    gradients = torch.autograd.grad(loss(*leaves, batch), leaves)
    after = [matrix.clone() for matrix in before]
    step(*after, batch)
    for old, new, gradient, rate in zip(before, after, gradients, rates, strict=True):
        torch.testing.assert_close(new, old - rate[:, None] * gradient)


@few
@given(data=st.data(), steps=st.integers(1, 3), rate=st.floats(0.001, 1))
def test_what_a_step_adds_up_to_in_a_row_is_bounded(
    data: st.DataObject, steps: int, rate: float
) -> None:
    """Row by row: the full rate where it may be, else as much as CALM allows."""
    row = st.lists(st.integers(0, 4), min_size=9, max_size=9)
    load = st.lists(st.floats(0.5, 500), min_size=9, max_size=9)
    rows = torch.tensor([data.draw(row) for _ in range(steps)])
    loads = torch.tensor([data.draw(load) for _ in range(steps)])
    rates = calm_rates(rows, loads, rate)
    for step, of_row in itertools.product(range(steps), range(5)):
        places = rows[step] == of_row
        total = loads[step][places].sum()
        expected = torch.clamp(CALM / total, max=rate).expand(int(places.sum()))
        torch.testing.assert_close(rates[step][places], expected)


@few
@given(lengths=lengths, model=st.sampled_from(list(MODELS)))
def test_rates_of_a_batch(lengths: list[int], model: str) -> None:
    """The loads of a batch's rows, counted pair by pair, give its rates."""
    config = Config(dim=4, batch=GROUP, model=model)
    text = numbered_text(lengths) % 7
    text[text == BOUNDARY % 7] = BOUNDARY
    for batch in batches_of(text, config, rate=0.5):
        pairs = batch.near.sum(-1).flatten()
        pairs = pairs if model == "skip-gram" else pairs.clamp(max=1)
        inward, outward = torch.zeros(2, 7)
        inward.index_add_(0, batch.center, pairs * 6)
        outward.index_add_(0, batch.center, pairs)
        noise = batch.weight.sum(1).expand(batch.noise.shape)
        outward.index_add_(0, batch.noise.flatten(), noise.flatten())
        inward, outward = ((CALM / load).clamp(max=0.5) for load in (inward, outward))
        here = inward if model == "skip-gram" else outward
        torch.testing.assert_close(batch.rates[0], here[batch.center])
        torch.testing.assert_close(batch.rates[2], outward[batch.noise.flatten()])


def test_a_burst_of_one_word_does_not_overshoot() -> None:
    """A text of few words, trained for long, ends in finite vectors of a fair size."""
    lines = ["the cat sat on the mat", "a dog lay in a basket"] * 2000
    vocabulary = count_words(lines, min_count=1, progress=False)
    tokens = encode(lines, vocabulary, progress=False)
    state = train(tokens, vocabulary.counts, Config(dim=16), progress=False)
    assert state.input.isfinite().all() and state.input.norm(dim=-1).max() < 20


# Distributions


def test_noise_is_drawn_by_count_to_the_power() -> None:
    """Frequencies of 200,000 noise words against count^0.75."""
    counts = torch.arange(1, 61) ** 2
    drawn = draw_noise(noise_cdf(counts, 0.75), (200, 1000), generator(1))
    frequencies = torch.bincount(drawn.flatten(), minlength=60).numpy()
    expected = counts.numpy() ** 0.75
    expected *= frequencies.sum() / expected.sum()
    assert chisquare(frequencies, expected).pvalue > 1e-3


def test_noise_stays_in_the_vocabulary() -> None:
    """Rounding in the cumulative sum never yields a word that is not there."""
    cdf = noise_cdf(torch.full((30_000,), 7), 0.75)
    drawn = draw_noise(cdf, (1000, 1000), generator())
    assert drawn.min() >= 0 and drawn.max() < 30_000


@few
@given(
    counts=st.lists(st.integers(1, 10**7), min_size=2, max_size=30),
    sample=st.floats(1e-6, 1),
)
def test_keep_probability(counts: list[int], sample: float) -> None:
    """word2vec's C code: (sqrt(f / t) + 1) t / f, at most 1."""
    share = np.array(counts) / sum(counts)
    expected = np.minimum((np.sqrt(share / sample) + 1) * sample / share, 1)
    found = keep_probability(torch.tensor(counts), sample)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_words_are_thinned_by_that_probability() -> None:
    """Of 200,000 occurrences of each word as many stay as should, and in order."""
    keep = torch.tensor([0.03, 0.4, 0.9, 1.0])
    ids = torch.randint(0, 4, (800_000,), generator=generator(2), dtype=torch.int32)
    ids[::10] = BOUNDARY
    kept, sentence = thin(ids, keep, generator(3))
    for word, chance in enumerate(keep.tolist()):
        of, stay = int((ids == word).sum()), int((kept == word).sum())
        assert abs(stay - of * chance) <= 5 * math.sqrt(of * chance * (1 - chance))
    assert (sentence.diff() >= 0).all()
    assert BOUNDARY not in kept


# Softmax, full and as a tree


def test_full_softmax_is_cross_entropy() -> None:
    """F.cross_entropy over all words gives the same loss."""
    input, output = torch.randn(2, 40, 6, dtype=torch.float64, generator=generator())
    center, context = torch.randint(0, 40, (2, 100), generator=generator())
    theirs = F.cross_entropy(input[center] @ output.T, context)
    torch.testing.assert_close(
        full_softmax_loss(input, output, center, context), theirs
    )


word_counts = st.lists(st.integers(1, 1000), min_size=2, max_size=40)


@few
@given(counts=word_counts)
def test_tree_probabilities_sum_to_one(counts: list[int]) -> None:
    """Whatever the vectors, the words share a probability of one."""
    words = len(counts)
    tree = huffman_tree(torch.tensor(counts))
    tree = tree._replace(sign=tree.sign.double())
    input = torch.randn(words, 5, dtype=torch.float64)
    inner = torch.randn(words - 1, 5, dtype=torch.float64)
    every = torch.arange(words)
    for center in range(min(words, 3)):
        log_probability = hierarchical_log_probability(
            input, inner, tree, torch.full_like(every, center), every
        )
        assert log_probability.exp().sum().item() == pytest.approx(1, abs=1e-12)


@few
@given(counts=word_counts)
def test_codes_are_huffman_codes(counts: list[int]) -> None:
    """No code begins another, no space is wasted, the length is near the entropy."""
    codes = huffman_codes(counts)
    turns = sorted(tuple(turn for _, turn in code) for code in codes)
    assert all(b[: len(a)] != a for a, b in itertools.pairwise(turns))
    assert sum(2.0 ** -len(code) for code in codes) == 1
    share = np.array(counts) / sum(counts)
    entropy = -(share * np.log2(share)).sum()
    length = sum(p * len(code) for p, code in zip(share, codes, strict=True))
    assert entropy - 1e-9 <= length < entropy + 1


def shortest(weights: tuple[int, ...]) -> int:
    """The least total code length of all binary trees, by trying each of them."""
    if len(weights) == 1:
        return 0
    costs = []
    for i, j in itertools.combinations(range(len(weights)), 2):
        rest = [w for k, w in enumerate(weights) if k not in (i, j)]
        joined = weights[i] + weights[j]
        costs.append(joined + shortest((*rest, joined)))
    return min(costs)


@few
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_no_tree_is_shorter(counts: list[int]) -> None:
    """On tiny vocabularies the tree is as short as the best of all trees."""
    codes = huffman_codes(counts)
    length = sum(n * len(code) for n, code in zip(counts, codes, strict=True))
    assert length == shortest(tuple(counts))


# Training


@pytest.fixture(scope="module")
def world() -> tuple[Vocabulary, Tensor]:
    """A small part of the little world, counted and encoded."""
    lines = little_world(8000)
    vocabulary = count_words(lines, min_count=1, progress=False)
    return vocabulary, encode(lines, vocabulary, progress=False)


SMALL = Config(dim=24, batch=GROUP, epochs=5, learning_rate=0.1)
ENDLESS = replace(SMALL, epochs=10_000)


def trained(
    world: tuple[Vocabulary, Tensor],
    state: State | None = None,
    workers: int = 1,
    watch: Callable[[Run], None] = lambda run: None,
    config: Config = SMALL,
    device: str = "cpu",
) -> State:
    """What a training of the small configuration ends with."""
    vocabulary, tokens = world
    return train(
        tokens,
        vocabulary.counts,
        config,
        state=state,
        workers=workers,
        watch=watch,
        device=device,
        progress=False,
    )


@pytest.fixture(scope="module")
def finished(world: tuple[Vocabulary, Tensor]) -> State:
    """A training with one worker that nobody has interrupted."""
    return trained(world)


@pytest.fixture(scope="module")
def vectors(world: tuple[Vocabulary, Tensor], finished: State) -> Vectors:
    """Vectors of that training."""
    return Vectors(world[0].words, finished.input)


def test_training_learns(vectors: Vectors) -> None:
    """It completes analogies whose answer no sentence has stated."""
    assert analogy_score(vectors, little_world_analogies())[0]["total"] > 0.9


def test_cbow_learns(world: tuple[Vocabulary, Tensor]) -> None:
    """CBOW has one example a centre instead of several, and needs more epochs."""
    config = replace(SMALL, epochs=10, model="cbow")
    vectors = Vectors(world[0].words, trained(world, config=config).input)
    assert analogy_score(vectors, little_world_analogies())[0]["total"] > 0.2


@pytest.mark.parametrize("after", [1, 7])
def test_resumed_equals_uninterrupted(
    world: tuple[Vocabulary, Tensor], finished: State, tmp_path: Path, after: int
) -> None:
    """Stopped after some chunks, saved, loaded and gone on with: the same bits."""

    def interrupt(run: Run) -> None:
        if run.ticket.value == after:
            raise KeyboardInterrupt

    words = world[0].words
    half = trained(world, watch=interrupt)
    assert half.done == after < finished.done
    save_state(tmp_path / "half", half, words, SMALL)
    whole = trained(world, state=load_state(tmp_path / "half", words, SMALL))
    assert whole.done == finished.done
    assert torch.equal(whole.input, finished.input)
    assert torch.equal(whole.output, finished.output)


def test_two_workers_finish_and_learn(
    world: tuple[Vocabulary, Tensor], finished: State
) -> None:
    """Without locks, and as well as one worker."""
    state = trained(world, workers=2)
    assert state.done == finished.done
    vectors = Vectors(world[0].words, state.input)
    assert analogy_score(vectors, little_world_analogies())[0]["total"] > 0.9


def test_two_workers_stop_when_asked(world: tuple[Vocabulary, Tensor]) -> None:
    """After an interrupt each worker completes its chunk, and no process is left."""

    def interrupt(run: Run) -> None:
        raise KeyboardInterrupt

    state = trained(world, workers=2, watch=interrupt, config=ENDLESS)
    assert 0 < state.done < 10_000
    assert not multiprocessing.active_children()


def test_killed_worker_is_an_error(world: tuple[Vocabulary, Tensor]) -> None:
    """A process that the system ends, for its memory say, is not waited for."""

    def kill(run: Run) -> None:
        multiprocessing.active_children()[0].kill()

    with pytest.raises(DataError, match="worker process"):
        trained(world, workers=2, watch=kill, config=ENDLESS)
    assert not multiprocessing.active_children()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_learns_the_same(world: tuple[Vocabulary, Tensor]) -> None:
    """Other random numbers than on the CPU, the same answers."""
    state = trained(world, device="cuda")
    vectors = Vectors(world[0].words, state.input)
    assert analogy_score(vectors, little_world_analogies())[0]["total"] > 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"epochs": 0},
        {"negatives": 0},
        {"sample": 0.0},
        {"learning_rate": -1.0},
        {"batch": 100},
    ],
)
def test_impossible_settings(wrong: dict[str, float]) -> None:
    """Refused when they are written down, and not in the middle of a run."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


# Files


@pytest.fixture(scope="module")
def odd() -> Vectors:
    """Words that a careless format breaks, and numbers at the edges."""
    words = ["café", "don't", "2nd", "ß", "дом", "词"]
    matrix = torch.randn(6, 3, generator=generator())
    matrix[0] = torch.tensor([1e-30, -3.4e38, 1 / 3])
    return Vectors(words, matrix)


@pytest.mark.parametrize("suffix", [".txt", ".bin", ".safetensors"])
def test_saved_vectors_come_back(odd: Vectors, tmp_path: Path, suffix: str) -> None:
    """The same words and the same bits, in each format."""
    path = save_vectors(odd, tmp_path / f"vectors{suffix}")
    back = load_vectors(path)
    assert back.words == odd.words
    assert torch.equal(back.matrix, odd.matrix)


@pytest.mark.parametrize("suffix", [".txt", ".bin", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no vectors\n", b"2 3\na 1 2 3\n", b"\xff"])
def test_files_that_hold_no_vectors(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    """Empty, foreign and cut files give one line that names them."""
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="bad"):
        load_vectors(path)


def test_vectors_without_file_or_format(odd: Vectors, tmp_path: Path) -> None:
    """A missing file, and a name that says no format."""
    with pytest.raises(DataError, match="no such file"):
        load_vectors(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"\.safetensors"):
        save_vectors(odd, tmp_path / "vectors.csv")


def test_checkpoint_of_another_run(tmp_path: Path) -> None:
    """Other words, other settings or no checkpoint at all: refused."""
    words, path = ["a", "b"], tmp_path / "checkpoint"
    save_state(path, first_state(2, SMALL), words, SMALL)
    assert load_state(path, words, SMALL).done == 0
    with pytest.raises(DataError, match="another run"):
        load_state(path, ["a", "c"], SMALL)
    with pytest.raises(DataError, match="another run"):
        load_state(path, words, Config(dim=24))
    path.write_bytes(b"cut")
    with pytest.raises(DataError, match="checkpoint"):
        load_state(path, words, SMALL)


# Gensim


@pytest.fixture(scope="module", params=[".txt", ".bin"])
def theirs(
    request: pytest.FixtureRequest,
    vectors: Vectors,
    tmp_path_factory: pytest.TempPathFactory,
) -> KeyedVectors:
    """Our file, read by gensim."""
    path = tmp_path_factory.mktemp("gensim") / f"vectors{request.param}"
    save_vectors(vectors, path)
    binary = request.param == ".bin"
    return KeyedVectors.load_word2vec_format(str(path), binary=binary)


def test_gensim_reads_the_same(theirs: KeyedVectors, vectors: Vectors) -> None:
    """All words in order, all numbers."""
    assert theirs.index_to_key == vectors.words
    assert np.array_equal(theirs.vectors, vectors.matrix.numpy())


def test_gensim_finds_the_same_neighbors(
    theirs: KeyedVectors, vectors: Vectors
) -> None:
    """Words and cosines of the ten nearest."""
    for word in vectors.words[::25]:
        ours, found = neighbors(vectors, word), theirs.most_similar(word)
        assert [w for w, _ in ours] == [w for w, _ in found]
        np.testing.assert_allclose(
            [s for _, s in ours], [s for _, s in found], rtol=1e-4
        )


def test_gensim_completes_the_same_analogies(
    theirs: KeyedVectors, vectors: Vectors
) -> None:
    """3CosAdd and 3CosMul."""
    for _, a, b, c, _ in little_world_analogies()[::101]:
        words = {"positive": [b, c], "negative": [a]}
        added = analogy(vectors, a, b, c, 3)
        assert [w for w, _ in added] == [w for w, _ in theirs.most_similar(**words)[:3]]
        multiplied = analogy(vectors, a, b, c, 1, multiply=True)
        assert multiplied[0][0] == theirs.most_similar_cosmul(**words)[0][0]


def test_similarity_score_is_gensims(
    theirs: KeyedVectors, vectors: Vectors, tmp_path: Path
) -> None:
    """Spearman's correlation over known pairs; pairs with unknown words left out."""
    words, random = vectors.words, np.random.default_rng(0)
    path = tmp_path / "pairs.txt"
    lines = [
        f"{words[i].title()}\t{words[j]}\t{random.integers(0, 40) / 4}"
        for i, j in random.integers(0, len(words), (200, 2))
    ]
    path.write_text("\n".join([*lines, "unknown\tking\t3.5"]) + "\n")
    score, known = similarity_score(vectors, read_pairs(path))
    _, spearman, unknown = theirs.evaluate_word_pairs(str(path))
    assert known == 200 and unknown > 0
    assert score == pytest.approx(spearman.statistic, abs=1e-6)


def test_analogy_score_is_gensims(
    theirs: KeyedVectors, vectors: Vectors, tmp_path: Path
) -> None:
    """The share of right answers in total and in each category."""
    questions = little_world_analogies()[::23]
    path, lines = tmp_path / "questions.txt", []
    for category, group in itertools.groupby(questions, lambda q: q[0]):
        lines += [f": {category}", *(" ".join(q[1:]).title() for q in group)]
    path.write_text("\n".join([*lines, "king queen man unknown"]) + "\n")
    ours, known = analogy_score(vectors, read_questions(path))
    total, sections = theirs.evaluate_word_analogies(str(path))
    assert known == len(questions)
    assert ours["total"] == pytest.approx(total)
    for section in sections[:-1]:
        right, wrong = len(section["correct"]), len(section["incorrect"])
        assert ours[section["section"]] == pytest.approx(right / (right + wrong))


# Small things


def test_unknown_words_get_a_hint(vectors: Vectors) -> None:
    """A DataError that names the word and one like it."""
    with pytest.raises(DataError, match=r"'quen'.*did you mean queen"):
        neighbors(vectors, "quen")
    with pytest.raises(DataError, match="none of 1 analogies"):
        analogy_score(vectors, [("all", "a", "b", "c", "nowhere")])
    with pytest.raises(DataError, match="only 0 of 1"):
        similarity_score(vectors, [("king", "nowhere", 1.0)])


def test_more_answers_than_words() -> None:
    """Never the words that were given, and never more than there are."""
    vectors = Vectors(["a", "b", "c", "d"], torch.eye(4))
    assert [w for w, _ in neighbors(vectors, "a", 99)] != []
    assert {w for w, _ in neighbors(vectors, "a", 99)} == {"b", "c", "d"}
    assert [w for w, _ in analogy(vectors, "a", "b", "c", 99)] == ["d"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("king\tqueen\n", "line 1"), ("a\tb\t1\na\tb\tx\n", "line 2")],
)
def test_bad_benchmark_files(tmp_path: Path, text: str, problem: str) -> None:
    """The line is named."""
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        read_pairs(path)
    path.write_text(": family\nking queen man\n")
    with pytest.raises(DataError, match="line 2"):
        read_questions(path)
