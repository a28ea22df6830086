"""Guessing ahead: whoever guesses, the text is the model's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from annotated.guessing import Rounded, guessed, rounded
from annotated.language import Sampling, continuations, draw, next_words
from annotated.modern import Config, LanguageModel

VOCAB = 23
SHAPES = {
    "usual": Config(2, 16, 24, 4, kv_heads=2),
    "untied": Config(1, 16, 24, 4, kv_heads=2, tied=False),
    "biases": Config(1, 16, 24, 4, kv_heads=4, bias=True),
    "chapter 4's": Config(
        1, 16, 24, 4, kv_heads=4, rope=0.0, positions="sinusoids", gate="none",
        rms=False, bias=True,
    ),
}  # fmt: skip


def lively(config: Config, seed: int = 0) -> LanguageModel:
    """A model in double precision whose words are not all equally likely."""
    torch.manual_seed(seed)
    model = LanguageModel(config, VOCAB).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    return model


class Choose:
    """The likeliest word, or one drawn in races that are known beforehand."""

    def __init__(self, temperature: float) -> None:
        self.how = Sampling(temperature)
        hand = torch.Generator().manual_seed(1)
        self.races = torch.randint(2**62, (99, 1), generator=hand)

    def __call__(self, logits: Tensor, n: int) -> Tensor:
        return next_words(logits, self.how, self.races[n])


def plainly(
    model: LanguageModel, prompt: list[int], choose: Choose, n: int
) -> list[int]:
    """Without guesses."""
    return [int(word) for word in continuations(model, [prompt], choose, n)]


class Counted:
    """How often, and how many words at a time, a model reads."""

    def __init__(self, model: LanguageModel, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        read = model.read

        def spied(ids: Tensor, *more: object) -> object:
            self.sizes.append(ids.shape[1])
            return read(ids, *more)  # type: ignore[arg-type]

        patch.setattr(model, "read", spied)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(list(SHAPES)),
    prompt=st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=6),
    ahead=st.integers(0, 5),
    longest=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 1.0]),
    who=st.sampled_from(["rounded", "stranger", "itself"]),
)
def test_the_text_does_not_depend_on_the_guesser(
    shape: str,
    prompt: list[int],
    ahead: int,
    longest: int,
    temperature: float,
    who: str,
) -> None:
    """Nor on how far it runs ahead; drawn in the same races or not drawn at all."""
    model = lively(SHAPES[shape])
    guesser = {
        "rounded": lambda: rounded(model),
        "stranger": lambda: lively(SHAPES["usual"], seed=5),
        "itself": lambda: model,
    }[who]()
    choose = Choose(temperature)
    found = list(guessed(model, guesser, prompt, choose, longest, ahead))
    assert found == plainly(model, prompt, choose, longest)


@pytest.mark.parametrize("ahead", [0, 1, 3, 7])
def test_a_perfect_guesser_saves_most(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All guesses stand, and each reading gives one word more than was guessed."""
    model, guesser = lively(SHAPES["usual"]), lively(SHAPES["usual"])
    large, small = Counted(model, monkeypatch), Counted(guesser, monkeypatch)
    words = list(guessed(model, guesser, [5, 6, 7], Choose(0.0), 16, ahead))
    assert len(words) == 16
    assert len(large.sizes) == math.ceil(16 / (ahead + 1))
    assert large.sizes[1:] == [ahead + 1] * (len(large.sizes) - 1)
    assert large.sizes[0] == 3 + ahead
    assert len(small.sizes) == 16 - len(large.sizes)
    assert set(small.sizes[1:]) <= {1, 2}, "never the whole text again"


def test_the_words_come_as_soon_as_they_are_known() -> None:
    """Whoever stops listening early has cost no more than a reading ahead."""
    model = lively(SHAPES["usual"])
    words = guessed(model, rounded(model), [5], Choose(0.0), 10**9, 4)
    assert [next(words) for _ in range(9)] == plainly(model, [5], Choose(0.0), 9)


@pytest.mark.parametrize("other", ["model", "guesser"])
def test_not_on_a_gpu(other: str) -> None:
    """Who tries is told so; no such device is needed to see it."""
    pair = {"model": lively(SHAPES["usual"]), "guesser": lively(SHAPES["usual"])}
    pair[other].to("meta")
    words = guessed(pair["model"], pair["guesser"], [5, 6], Choose(0.0), 9, 2)
    with pytest.raises(ValueError, match="guessing ahead goes on a CPU only"):
        next(words)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rounded_copy(shape: str) -> None:
    """All products have eight bits, all else sixteen, and the model keeps its own."""
    model = lively(SHAPES[shape]).float()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    guesser = rounded(model)
    layers = [m for m in guesser.modules() if isinstance(m, Rounded)]
    mine = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == len(mine)
    assert all(layer.weight.dtype == torch.int8 for layer in layers)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    table = (model.embedding or model.output).weight
    assert torch.equal(guesser.embedding.weight, table.bfloat16())  # type: ignore[union-attr]
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        both = [m.read(ids) for m in (model, guesser)]
        logits = [m.output(x) for m, (x, _) in zip((model, guesser), both, strict=True)]
    assert all(t.dtype == torch.bfloat16 for t in (logits[1], *both[1][1].values()))
    one, other = (each.float().softmax(-1) for each in logits)
    assert (one - other).abs().sum(-1).mean() / 2 < 0.2


def test_a_layer_of_eight_bits() -> None:
    """Against the product with rounded weights; a row of zeros stays zero.

    The kernel reads 32 numbers at a time; 40 is no multiple of that.
    """
    torch.manual_seed(0)
    layer = nn.Linear(40, 12)
    with torch.no_grad():
        layer.weight[3] = 0
    short, x = Rounded(layer), torch.randn(2, 3, 40)
    steps = layer.weight.detach().abs().amax(1, keepdim=True) / 127
    wanted = x @ (short.weight[:, :40] * steps).T + layer.bias
    found = short(x.bfloat16())
    assert found.dtype == torch.bfloat16 and found.shape == (2, 3, 12)
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=0.02)
    assert (found[..., 3] == layer.bias[3].bfloat16()).all()
    assert short.weight.abs().amax(1).tolist() == [127] * 3 + [0] + [127] * 8


def test_who_is_nearly_as_likely_nearly_always_wins() -> None:
    """Among many words, too; where they are equally likely, always (equation 4)."""
    torch.manual_seed(0)
    chance = (2 * torch.randn(1, 3000)).softmax(-1)
    other = chance * (1 + 0.02 * torch.randn(1, 3000))
    other /= other.sum()
    delta = float((chance - other).abs().sum() / 2)
    races = torch.arange(400)[:, None]
    won = [[int(draw(p, race)) for race in races] for p in (chance, other, chance)]
    same = sum(a == b for a, b in zip(won[0], won[1], strict=True)) / len(races)
    assert won[0] == won[2] and len(set(won[0])) > 100
    assert same > (1 - delta) / (1 + delta) - 0.02
    assert same > 0.95
