"""The chunked loss against torch's, and the schedules."""

import math
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from annotated.training import (
    Recipe,
    TrainingError,
    check_recipe,
    linear_cross_entropy,
    schedule,
)


def leaves(dtype: torch.dtype, bias: bool = True) -> list[Tensor]:
    """Features of 70 tokens, a layer for 40 words, and the right words."""
    torch.manual_seed(0)
    shapes = [(70, 8), (40, 8)] + [(40,)] * bias
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


TARGETS = torch.randint(40, (70,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 1e-6)]
)
def test_equals_torch(
    dtype: torch.dtype, atol: float, bias: bool, smoothing: float
) -> None:
    """Loss, likelihood and all gradients."""
    weights = leaves(dtype, bias)
    features, weight, b = (*weights, None)[:3]
    loss, nll = linear_cross_entropy(features, weight, b, TARGETS, smoothing, chunk=16)
    logits = F.linear(features, weight, b)
    wanted = F.cross_entropy(logits, TARGETS, label_smoothing=smoothing)
    torch.testing.assert_close(loss / 70, wanted, rtol=0, atol=atol)
    likelihood = F.cross_entropy(logits, TARGETS)
    torch.testing.assert_close(nll / 70, likelihood, rtol=0, atol=atol)
    ours = torch.autograd.grad(loss / 70, weights)
    for one, other in zip(ours, torch.autograd.grad(wanted, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


@pytest.mark.parametrize("chunk", [2, 16, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_two_passes_equal_torch(bias: bool, chunk: int) -> None:
    """R-Drop: the loss and its gradients, by way of F.kl_div."""
    weights = leaves(torch.float64, bias)
    features, weight, b = (*weights, None)[:3]
    targets = TARGETS[:35].repeat_interleave(2)
    loss, nll = linear_cross_entropy(
        features, weight, b, targets, 0.1, chunk, r_drop=3.0
    )
    logits = F.linear(features, weight, b)
    one, two = logits.log_softmax(-1)[::2], logits.log_softmax(-1)[1::2]
    both = [
        F.kl_div(p, q, log_target=True, reduction="sum")
        for p, q in ((one, two), (two, one))
    ]
    wanted = F.cross_entropy(logits, targets, label_smoothing=0.1, reduction="sum")
    wanted = wanted + 3.0 * sum(both) / 2
    torch.testing.assert_close(loss, wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        nll, F.cross_entropy(logits, targets, reduction="sum"), rtol=1e-13, atol=0
    )
    ours = torch.autograd.grad(loss, weights)
    for one, other in zip(ours, torch.autograd.grad(wanted, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "chunk"), [(69, 16), (70, 15)])
def test_a_token_of_two_passes_has_two_rows(rows: int, chunk: int) -> None:
    """A chunk that parts two rows of a token is refused."""
    features, weight, bias = leaves(torch.float32)
    with pytest.raises(ValueError, match=f"{rows} rows in chunks of {chunk}"):
        linear_cross_entropy(
            features[:rows], weight, bias, TARGETS[:rows], chunk=chunk, r_drop=1.0
        )


def test_does_not_depend_on_the_chunk() -> None:
    """One token at a time, or all at once."""
    features, weight, bias = leaves(torch.float64)
    losses = [
        linear_cross_entropy(features, weight, bias, TARGETS, 0.1, chunk)[0].item()
        for chunk in (1, 7, 70, 1000)
    ]
    assert max(losses) - min(losses) < 1e-11


def test_never_holds_more_scores_than_a_chunk() -> None:
    """No tensor of the forward or backward pass is larger than chunk × vocab."""

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.size = max(self.size, out.numel())
            return out

    features, weight, bias = leaves(torch.float32)
    with Largest() as largest:
        linear_cross_entropy(features, weight, bias, TARGETS, 0.1, 20)[0].backward()
    assert largest.size == 20 * 40


def test_no_tokens_cost_nothing() -> None:
    """A batch without real tokens has loss zero and no gradient."""
    _, weight, bias = leaves(torch.float32)
    loss, nll = linear_cross_entropy(torch.zeros(0, 8), weight, bias, TARGETS[:0])
    loss.backward()
    assert loss.item() == nll.item() == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_only_the_loss_has_a_gradient() -> None:
    """The likelihood is for reporting; without gradients none are formed."""
    features, weight, bias = leaves(torch.float32)
    loss, nll = linear_cross_entropy(features, weight, bias, TARGETS)
    assert loss.requires_grad
    assert not nll.requires_grad
    with torch.no_grad():
        loss, _ = linear_cross_entropy(features, weight, bias, TARGETS)
    assert not loss.requires_grad


@pytest.mark.parametrize("how", ["argument", "autocast"])
def test_bfloat16(how: str) -> None:
    """Asked for either way, near to the exact one and not equal to it."""
    features, weight, bias = leaves(torch.float32)
    exact = linear_cross_entropy(features, weight, bias, TARGETS, 0.1)[0]
    low = torch.bfloat16 if how == "argument" else None
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        loss, _ = linear_cross_entropy(features, weight, bias, TARGETS, 0.1, dtype=low)
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()
    assert math.isclose(loss.item(), exact.item(), rel_tol=1e-2)
    gradients = [
        torch.autograd.grad(x, (features, weight, bias)) for x in (loss, exact)
    ]
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("name", ["noam", "cosine", "linear", "constant"])
def test_schedules_rise_to_the_peak_and_fall_from_it(name: Any) -> None:
    """In a line through the warm-up; never up again; the last step is a step."""
    factors = [schedule(name, 10, 100)(update) for update in range(1, 101)]
    assert factors[:10] == [update / 10 for update in range(1, 11)]
    after = factors[9:]
    assert after == sorted(after, reverse=True)
    assert after[0] == 1
    assert after[-1] > 0
    assert (after[-1] == 1) == (name == "constant")


@pytest.mark.parametrize("name", ["noam", "cosine", "linear", "constant"])
@pytest.mark.parametrize(("warmup", "updates"), [(0, 5), (5, 5), (10, 5), (0, 1)])
def test_schedules_at_their_edges(name: Any, warmup: int, updates: int) -> None:
    """No warm-up, nothing but warm-up, a single update: always above 0, at most 1."""
    factors = [schedule(name, warmup, updates)(u + 1) for u in range(updates)]
    assert all(0 < factor <= 1 for factor in factors)


def test_noam_is_the_formula_of_the_paper() -> None:
    """Vaswani et al. 2017, equation 3."""
    for update in (1, 100, 4000, 4001, 50_000):
        paper = 512**-0.5 * min(update**-0.5, update * 4000**-1.5)
        ours = (512 * 4000) ** -0.5 * schedule("noam", 4000, 100_000)(update)
        assert math.isclose(ours, paper)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"updates": 0}, "updates is 0: give 1 or more"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"ema": -0.1}, "ema is -0.1"),
        ({"schedule": "step"}, "schedule is step: give noam, cosine"),
        ({"optimizer": "sgd"}, "optimizer is sgd"),
        ({"precision": "fp16"}, "precision is fp16"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"clip": math.nan}, "clip is nan"),
        ({"ema": 0.9, "average": 2, "validate_every": 1}, "choose one"),
        ({"patience": 2}, "validate_every"),
    ],
)
def test_a_recipe_that_cannot_be_cooked(settings: dict[str, Any], said: str) -> None:
    """Each wrong setting is named."""
    recipe = SimpleNamespace(**asdict(Recipe(5)) | settings)
    with pytest.raises(TrainingError, match=said) as info:
        check_recipe(recipe)
    assert "\n" not in str(info.value)


def test_a_recipe_is_checked_when_it_is_written() -> None:
    """And not only when it is cooked."""
    with pytest.raises(TrainingError, match="updates is 0"):
        Recipe(0)
