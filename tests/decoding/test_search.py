"""The searches, held against models that are known completely."""

import itertools
import math
from functools import partial

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from annotated.decoding import (
    Hypothesis,
    StepModel,
    beam_search,
    greedy,
    largest,
    normaliser,
    sample,
    search_all,
    shaped,
)
from annotated.subwords import END, PAD, START

Tensors = dict[str, Tensor]


class Table:
    """The next word depends on the last; the source's first id chooses the table."""

    def __init__(self, tables: Tensor) -> None:
        """Take probabilities: tables[source][last][next]."""
        self.logits = tables.log()
        self.sizes: list[tuple[int, int]] = []

    def encode(self, source: Tensor, lengths: Tensor) -> Tensors:
        """Remember the first id."""
        return {"which": source[:, 0]}

    def start(self, memory: Tensors) -> Tensors:
        """Nothing to carry."""
        return {}

    def step(
        self, token: Tensor, state: Tensors, memory: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Look up, and note how much was asked at once."""
        self.sizes.append((token.shape[0], token.shape[1]))
        return self.logits[memory["which"][:, None], token], state


class Tiny(nn.Module):
    """A GRU with dot attention; its weights are large, so that words differ."""

    def __init__(self, vocab: int = 20, d: int = 12, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(vocab, d)
            self.cell = nn.GRUCell(2 * d, d)
            self.output = nn.Linear(d, vocab)
        self.dropout = nn.Dropout(0.5)

    def encode(self, source: Tensor, lengths: Tensor) -> Tensors:
        """Embed the source, and tell words from padding."""
        real = torch.arange(source.shape[1]) < lengths[:, None]
        return {"words": self.embedding(source), "real": real}

    def start(self, memory: Tensors) -> Tensors:
        """Begin with the sum of the real words."""
        return {"s": (memory["words"] * memory["real"][..., None]).sum(1)[:, None]}

    def step(
        self, token: Tensor, state: Tensors, memory: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Look, then move."""
        match = state["s"] @ memory["words"].transpose(1, 2)
        weight = match.masked_fill(~memory["real"][:, None], -math.inf).softmax(-1)
        given = torch.cat([self.embedding(token), weight @ memory["words"]], -1)
        s = self.cell(given.flatten(0, 1), state["s"].flatten(0, 1))
        s = s.view_as(state["s"])
        return 6 * self.output(self.dropout(s)), {"s": s, "attention": weight}


class Recomputing(Tiny):
    """The same model without a cache: each step begins at the first word."""

    def start(self, memory: Tensors) -> Tensors:
        """Carry nothing but the words so far."""
        batch = len(memory["words"])
        return {"path": torch.zeros(batch, 1, 0, dtype=torch.int64)}

    def step(
        self, token: Tensor, state: Tensors, memory: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Walk the whole path again."""
        path = torch.cat([state["path"], token[..., None]], 2)
        inner = super().start(memory)
        inner = {"s": inner["s"].expand(-1, token.shape[1], -1)}
        for word in path.unbind(2):
            logits, inner = super().step(word, inner, memory)
        return logits, {"path": path, "attention": inner["attention"]}


def padded(sentences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Make a batch."""
    lengths = torch.tensor([len(ids) for ids in sentences])
    source = torch.full((len(sentences), int(lengths.max())), PAD)
    for row, ids in zip(source, sentences, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return source, lengths


def own(model: StepModel, source: list[int], ids: list[int]) -> tuple[float, Tensor]:
    """Ask for the model's own log-probability, and the attention, of an answer."""
    total, seen = 0.0, []
    with torch.no_grad():
        memory = model.encode(*padded([source]))
        state = model.start(memory)
        for before, after in itertools.pairwise([START, *ids, END]):
            logits, state = model.step(torch.tensor([[before]]), state, memory)
            total += logits.double().log_softmax(-1)[0, 0, after].item()
            seen.append(state.get("attention", torch.zeros(1, 1, 1))[0, 0])
    return total, torch.stack(seen)


def reference(
    model: StepModel, source: list[int], beam: int, most: int, alpha: float, gnmt: bool
) -> list[tuple[float, list[int]]]:
    """A beam search for one sentence, with lists, no cache and no bound."""

    def gains(ids: list[int]) -> Tensor:
        with torch.no_grad():
            memory = model.encode(*padded([source]))
            state = model.start(memory)
            for word in [START, *ids]:
                logits, state = model.step(torch.tensor([[word]]), state, memory)
        return logits[0, 0].log_softmax(-1)

    live: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    while live:
        options = []
        for total, ids in live:
            row = gains(ids)
            words = [END] if len(ids) == most else [END, *range(3, len(row))]
            options += [(total + row[w].item(), [*ids, w]) for w in words]
        options = [o for o in options if o[0] > -math.inf]
        options.sort(key=lambda option: -option[0])
        live = []
        for total, ids in options[: beam - len(ended)]:
            if ids[-1] != END:
                live.append((total, ids))
                continue
            n = len(ids)
            divisor = ((5 + n) / 6) ** alpha if gnmt else n**alpha
            ended.append((total / divisor, ids[:-1]))
    return sorted(ended, key=lambda option: -option[0])


def ids_of(answers: list[list[Hypothesis]]) -> list[list[list[int]]]:
    """Only the words."""
    return [[h.ids for h in some] for some in answers]


@pytest.fixture
def sources() -> list[list[int]]:
    """Thirty sentences of one to twelve words."""
    draw = torch.Generator().manual_seed(0)
    lengths = [1 + i * 5 % 12 for i in range(30)]
    return [torch.randint(3, 20, (n,), generator=draw).tolist() for n in lengths]


@pytest.fixture
def tiny() -> Tiny:
    """A model at rest."""
    return Tiny().eval()


@pytest.fixture
def zoo() -> Table:
    """Eight random languages of seven words, in which sentences end soon enough."""
    draw = torch.Generator().manual_seed(3)
    tables = torch.rand(8, 7, 7, generator=draw) ** 3
    tables[..., [PAD, START]] = 0
    tables[..., END] += 0.05
    return Table(tables / tables.sum(-1, keepdim=True))


def test_beam_of_one_is_greedy(tiny: Tiny, sources: list[list[int]]) -> None:
    """Under every length penalty."""
    wanted = ids_of(greedy(tiny, *padded(sources)))
    assert len({tuple(ids) for (ids,) in wanted}) > 10
    for alpha, penalty in itertools.product([0, 1, 3.0], ["length", "gnmt"]):
        found = beam_search(
            tiny, *padded(sources), beam=1, length_penalty=alpha, penalty=penalty
        )
        assert ids_of(found) == wanted


@pytest.mark.parametrize("penalty", ["length", "gnmt"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_wide_beam_is_exhaustive_search(zoo: Table, alpha: float, penalty: str) -> None:
    """All 85 sentences of at most three of four words, in the right order."""
    letters, most = (3, 4, 5, 6), 3
    for row in range(4):
        every = []
        for n in range(most + 1):
            for ids in itertools.product(letters, repeat=n):
                score = own(zoo, [row], list(ids))[0] / normaliser(
                    n + 1, alpha, penalty
                )
                every.append((score, list(ids)))
        every.sort(key=lambda option: -option[0])
        (found,) = beam_search(
            zoo,
            *padded([[row]]),
            beam=85,
            n_best=85,
            max_length=most,
            length_penalty=alpha,
            penalty=penalty,
        )
        assert len(found) == len(every) == 85
        assert [h.score for h in found] == pytest.approx(
            [s for s, _ in every], rel=1e-4
        )
        assert found[0].ids == every[0][1]
        assert {tuple(h.ids) for h in found} == {tuple(ids) for _, ids in every}


@pytest.mark.parametrize("gnmt", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("beam", [2, 5])
def test_bound_changes_nothing(
    tiny: Tiny, sources: list[list[int]], beam: int, alpha: float, gnmt: bool
) -> None:
    """A search without the bound, the cache or the batch finds the same."""
    few = sources[:8]
    options = {"max_length": 9, "penalty": "gnmt" if gnmt else "length"}
    best, every = (
        beam_search(
            tiny, *padded(few), beam=beam, n_best=n, length_penalty=alpha, **options
        )
        for n in (1, beam)
    )
    for source, one, some in zip(few, best, every, strict=True):
        slow = reference(tiny, source, beam, 9, alpha, gnmt)
        assert len(slow) == beam
        assert [h.ids for h in one] == [slow[0][1]]
        assert [h.ids for h in some] == [ids for _, ids in slow]
        assert [h.score for h in some] == pytest.approx([s for s, _ in slow], rel=1e-4)


@pytest.mark.parametrize("beam", [2, 4])
def test_an_ended_hypothesis_keeps_its_place_in_the_beam(zoo: Table, beam: int) -> None:
    """Where sentences end early and late, a beam of four ends with four sentences."""
    found = beam_search(zoo, *padded([[i] for i in range(8)]), beam=beam, n_best=beam)
    for row, some in enumerate(found):
        slow = reference(zoo, [row], beam, 12, 1.0, gnmt=False)
        assert [h.ids for h in some] == [ids for _, ids in slow]
    assert len({len(h.ids) for some in found for h in some}) > 3


def test_search_goes_on_after_the_first_end_and_stops_by_the_bound() -> None:
    """A short sentence ends at once, a better one later; then nothing can win."""
    table = torch.zeros(1, 6, 6)
    table[0, START, END], table[0, START, 3] = 0.4, 0.6
    table[0, 3, 4] = 1.0
    table[0, 4, END], table[0, 4, 5] = 0.9, 0.1
    table[0, 5, 5] = 1.0
    model = Table(table)
    (found,) = beam_search(model, *padded([[0]]), beam=3, max_length=50)
    assert found[0].ids == [3, 4]
    assert found[0].score == pytest.approx(math.log(0.54) / 3, rel=1e-5)
    assert len(model.sizes) > 3, "with α = 1, a long tail might still win"
    model.sizes.clear()
    beam_search(model, *padded([[0]]), beam=3, max_length=50, length_penalty=0)
    assert len(model.sizes) == 3, "without a penalty, nothing can"


def test_batch_is_one_by_one(tiny: Tiny, sources: list[list[int]]) -> None:
    """Whoever shares a batch does not matter, attention included."""
    options = {"attention": True, "n_best": 3, "beam": 4}
    together = beam_search(tiny, *padded(sources), **options)
    for source, some in zip(sources, together, strict=True):
        (alone,) = beam_search(tiny, *padded([source]), **options)
        assert [h.ids for h in some] == [h.ids for h in alone]
        for one, other in zip(some, alone, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-5)
            torch.testing.assert_close(one.attention, other.attention)
    alone = [greedy(tiny, *padded([source]))[0] for source in sources]
    assert ids_of(greedy(tiny, *padded(sources))) == ids_of(alone)


def test_cached_is_uncached(tiny: Tiny, sources: list[list[int]]) -> None:
    """The state follows its hypothesis: recomputing from START changes nothing."""
    slow = Recomputing().eval()
    for search in (greedy, partial(beam_search, beam=4, n_best=4)):
        fast = search(tiny, *padded(sources), max_length=8, attention=True)
        other = search(slow, *padded(sources), max_length=8, attention=True)
        assert ids_of(fast) == ids_of(other)
        for a, b in zip(sum(fast, []), sum(other, []), strict=True):
            torch.testing.assert_close(a.attention, b.attention)


@pytest.mark.parametrize("search", ["greedy", "beam", "sample"])
def test_scores_are_the_models_own(
    tiny: Tiny, sources: list[list[int]], search: str
) -> None:
    """Forced word by word, the model gives the same log-probability and attention."""
    generator = torch.Generator().manual_seed(0)
    run = {
        "greedy": greedy,
        "beam": partial(beam_search, beam=5, n_best=5, length_penalty=0.7),
        "sample": partial(sample, samples=3, temperature=0.5, generator=generator),
    }[search]
    for source, some in zip(
        sources, run(tiny, *padded(sources), attention=True), strict=True
    ):
        assert [h.score for h in some] == sorted((h.score for h in some), reverse=True)
        for h in some:
            total, seen = own(tiny, source, h.ids)
            assert h.log_probability == pytest.approx(total, rel=1e-4, abs=1e-4)
            length = (len(h.ids) + 1) ** 0.7 if search == "beam" else 1
            assert h.score == pytest.approx(total / length, rel=1e-4, abs=1e-4)
            assert h.attention is not None
            assert h.attention.shape == (len(h.ids) + 1, len(source))
            torch.testing.assert_close(h.attention, seen, atol=1e-5, rtol=1e-4)


def test_attention_only_on_request(tiny: Tiny, zoo: Table) -> None:
    """And it is an error to ask a model that has none."""
    assert greedy(tiny, *padded([[5, 6]]))[0][0].attention is None
    for search in (greedy, beam_search, sample):
        with pytest.raises(ValueError, match="attention"):
            search(zoo, *padded([[0]]), attention=True)


def test_padding_and_start_are_never_written() -> None:
    """Not even by a model that would like nothing better."""
    table = torch.full((1, 6, 6), 0.02)
    table[..., PAD], table[..., START] = 0.5, 0.42
    model = Table(table)
    draws = sample(model, *padded([[0]]), samples=200, max_length=5)[0]
    narrow = [greedy(model, *padded([[0]]), max_length=5)[0][0]]
    wide = beam_search(model, *padded([[0]]), beam=50, n_best=50, max_length=5)[0]
    for h in [*draws, *narrow, *wide]:
        assert not {PAD, START, END} & set(h.ids)
        assert len(h.ids) <= 5
        assert h.log_probability == pytest.approx((len(h.ids) + 1) * math.log(0.02))
    assert len(wide) == 50


def test_limit_is_the_sentences_own() -> None:
    """A model that never ends is ended, at twice its own source's length and ten."""
    table = torch.full((1, 5, 5), 1e-9)
    table[..., 3], table[..., END] = 1.0, 1e-6
    sources = [[0], [0, 4, 4], [0, 4]]
    for search in (greedy, beam_search, sample):
        found = search(Table(table), *padded(sources))
        assert [len(some[0].ids) for some in found] == [12, 16, 14]
        found = search(Table(table), *padded(sources), max_length=4)
        assert [some[0].ids for some in found] == [[3] * 4] * 3


def test_finished_sentences_leave_the_batch(zoo: Table) -> None:
    """The work shrinks with what is left to do."""
    beam_search(zoo, *padded([[i] for i in range(8)]), beam=4)
    rows = [batch for batch, _ in zoo.sizes]
    assert rows[0] == 8 and rows[-1] < 8 and rows == sorted(rows, reverse=True)
    assert zoo.sizes[0] == (8, 1) and 1 < max(beam for _, beam in zoo.sizes) <= 4


def test_dropout_rests_and_the_mode_returns(sources: list[list[int]]) -> None:
    """A model in training is searched without dropout, and goes on training."""
    model = Tiny().train()
    wanted = ids_of(beam_search(Tiny().eval(), *padded(sources)))
    assert ids_of(beam_search(model, *padded(sources))) == wanted
    assert model.training and model.dropout.training
    with pytest.raises(ValueError, match="n_best"):
        beam_search(model, *padded(sources), beam=2, n_best=3)
    assert model.training
    at_rest = Tiny().eval()
    greedy(at_rest, *padded(sources))
    assert not at_rest.training
    (found,) = greedy(at_rest, *padded([[5, 6]]), attention=True)
    assert found[0].attention is not None
    assert not found[0].attention.requires_grad


def test_largest_is_topk() -> None:
    """Also with ties, with a rest after the last block, and with few words."""
    draw = torch.Generator().manual_seed(0)
    for vocab, k in itertools.product([5, 99, 100, 101, 750, 5_003], [1, 4, 7]):
        numbers = torch.randn(3, 2, vocab, generator=draw)
        values, ids = largest(numbers, k)
        wanted = numbers.topk(min(k, vocab))
        assert torch.equal(values, wanted.values)
        assert torch.equal(ids, wanted.indices)
        ties = numbers.round()
        values, ids = largest(ties, k)
        assert torch.equal(values, ties.topk(min(k, vocab)).values)
        assert torch.equal(ties.gather(-1, ids), values)
        assert all(len(set(row.tolist())) == len(row) for row in ids.flatten(0, 1))


def test_vocabulary_of_many_blocks() -> None:
    """With more words than fit the small path, the search is still the reference's."""
    model = Tiny(vocab=1_234, seed=2).eval()
    sources = [[3, 4], [1_200, 17, 900]]
    found = beam_search(model, *padded(sources), beam=4, n_best=4, max_length=6)
    for source, some in zip(sources, found, strict=True):
        slow = reference(model, source, 4, 6, 1.0, gnmt=False)
        assert [h.ids for h in some] == [ids for _, ids in slow]


def test_normaliser() -> None:
    """Both formulas, with whole numbers, floats and tensors."""
    assert normaliser(4, 0) == normaliser(4, 0.0, "gnmt") == 1
    assert normaliser(4, 0.5) == 2
    assert normaliser(13, 1, "gnmt") == 3
    lengths = torch.tensor([1, 7])
    assert torch.as_tensor(normaliser(lengths, 1.0, "gnmt")).tolist() == [1, 2]


def test_samples_come_as_often_as_they_should(zoo: Table) -> None:
    """χ² over whole sentences, for the model's distribution and a sharper one."""
    for temperature, top_k in [(1.0, None), (0.6, None), (1.0, 2)]:
        generator = torch.Generator().manual_seed(0)
        (drawn,) = sample(
            zoo,
            *padded([[2]]),
            samples=20_000,
            temperature=temperature,
            top_k=top_k,
            generator=generator,
            max_length=2,
        )
        counts: dict[tuple[int, ...], int] = {}
        for h in drawn:
            counts[tuple(h.ids)] = counts.get(tuple(h.ids), 0) + 1
        chance = {}
        for n in range(3):
            for ids in itertools.product(range(3, 7), repeat=n):
                p = 1.0
                for before, after in itertools.pairwise([START, *ids, END][: n + 2]):
                    row = shaped(zoo.logits[2, before], temperature, top_k).softmax(-1)
                    p *= 1.0 if n == 2 and after == END else row[after].item()
                chance[ids] = p
        assert sum(chance.values()) == pytest.approx(1, abs=1e-4)
        assert set(counts) <= {ids for ids, p in chance.items() if p > 0}
        often = [ids for ids, p in chance.items() if p > 5e-4]
        expected = [20_000 * chance[ids] for ids in often]
        observed = [counts.get(ids, 0) for ids in often]
        value = chisquare(observed, expected, sum_check=False).pvalue
        assert value > 0.01, (temperature, top_k)


def test_sampling_repeats_with_its_generator(
    tiny: Tiny, sources: list[list[int]]
) -> None:
    """The same seed gives the same, another seed something else."""
    runs = [
        sample(
            tiny,
            *padded(sources),
            temperature=2.0,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    ]
    assert ids_of(runs[0]) == ids_of(runs[1]) != ids_of(runs[2])


def test_top_k_and_top_p_keep_what_they_say() -> None:
    """Exactly k words; the smallest set whose probability reaches p."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 40, generator=draw)
    chance = logits.softmax(-1)
    for k in (1, 3, 40, 100):
        kept = shaped(logits, top_k=k).isfinite()
        assert (kept.sum(-1) == min(k, 40)).all()
        worst = chance.masked_fill(~kept, 2).amin(-1)
        assert (worst >= chance.masked_fill(kept, -1).amax(-1)).all()
    for p in (0.01, 0.5, 0.9):
        kept = shaped(logits, top_p=p).isfinite()
        mass = chance.masked_fill(~kept, 0).sum(-1)
        smallest = chance.masked_fill(~kept, 2).amin(-1)
        assert (mass >= p - 1e-5).all()
        assert (mass - smallest < p + 1e-5).all()
        assert (smallest >= chance.masked_fill(kept, -1).amax(-1)).all()
    assert torch.equal(shaped(logits, top_p=1.0), logits)
    torch.testing.assert_close(shaped(logits, temperature=0.5), 2 * logits)


def test_temperature_leaves_the_score_alone(zoo: Table) -> None:
    """However a sentence was drawn, its score is the model's."""
    (drawn,) = sample(zoo, *padded([[1]]), samples=20, temperature=3.0, top_k=3)
    for h in drawn:
        assert h.score == h.log_probability
        assert h.score == pytest.approx(own(zoo, [1], h.ids)[0], rel=1e-4)


def test_search_all_keeps_the_order(
    tiny: Tiny, sources: list[list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the size of the batch; END is appended; the bar can be silenced."""
    wanted = [greedy(tiny, *padded([[*ids, END]]))[0][0].ids for ids in sources]
    for batch in (1, 7, 100):
        found = search_all(tiny, sources, search=greedy, batch=batch, progress=False)
        assert [some[0].ids for some in found] == wanted
    assert capsys.readouterr().err == ""
    search_all(tiny, sources, search=greedy)
    assert "30/30" in capsys.readouterr().err
    assert search_all(tiny, [], progress=False) == []
    (some, _) = search_all(tiny, sources[:2], beam=3, n_best=2, progress=False)
    assert len(some) == 2


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (beam_search, {"beam": 0}, "beam.*at least 1.*0"),
        (beam_search, {"n_best": 6}, "n_best.*5.*6"),
        (beam_search, {"n_best": 0}, "n_best"),
        (beam_search, {"length_penalty": -1.0}, "length_penalty.*-1"),
        (beam_search, {"length_penalty": math.nan}, "length_penalty"),
        (beam_search, {"max_length": 0}, "max_length.*0"),
        (greedy, {"max_length": 0}, "max_length.*0"),
        (sample, {"temperature": 0}, "temperature.*0.*greedy"),
        (sample, {"temperature": -1.0}, "temperature"),
        (sample, {"temperature": math.nan}, "temperature"),
        (sample, {"top_p": 0.0}, "top_p"),
        (sample, {"top_p": 1.5}, "top_p.*1.5"),
        (sample, {"top_k": 0}, "top_k"),
        (sample, {"samples": 0}, "samples"),
    ],
)
def test_refuses_settings_without_meaning(
    tiny: Tiny, search: object, options: dict[str, float], message: str
) -> None:
    """In one line that says what was expected."""
    assert callable(search)
    with pytest.raises(ValueError, match=message) as caught:
        search(tiny, *padded([[5, 6]]), **options)
    assert "\n" not in str(caught.value)


def test_refuses_empty_sources(tiny: Tiny) -> None:
    """And says which."""
    with pytest.raises(ValueError, match="sentence 2 of 3 is empty"):
        search_all(tiny, [[5], [], [6]], progress=False)
    with pytest.raises(ValueError, match="batch"):
        search_all(tiny, [[5]], batch=0, progress=False)
    source, _ = padded([[5, 6], [7]])
    for wrong in (0, 3):
        for search in (greedy, beam_search, sample):
            with pytest.raises(ValueError, match=f"source 2 of 2 has length {wrong}"):
                search(tiny, source, torch.tensor([2, wrong]))


def test_tells_of_a_model_that_went_wrong() -> None:
    """NaN in the logits is an error, not a sentence."""
    table = torch.full((1, 5, 5), 0.2)
    table[0, 3] = math.nan
    table[0, START] = torch.tensor([0, 0, 0, 1.0, 0])
    for search in (greedy, beam_search, sample):
        with pytest.raises(ValueError, match="not finite at word 2"):
            search(Table(table), *padded([[0]]))
