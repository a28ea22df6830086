"""The language model on a GPU: the numbers of a CPU, and no table of weights."""

from typing import Any

import pytest
import torch
from torch import Tensor

from annotated.kernels import grouped_attention
from annotated.modern import LanguageModel
from annotated.subwords import START
from annotated.transformer import causal

from .conftest import VOCAB

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def numbers(model: LanguageModel, device: str, ids: Tensor) -> list[Tensor]:
    """Logits, steps behind prompts of two lengths, loss and gradients."""
    model, ids = model.to(device), ids.to(device)
    start = torch.full((2, 1), START, device=device)
    with torch.no_grad():
        found = [model.output(model.read(ids)[0])]
        for lengths in ([9, 9], [9, 4]):
            memory = model.encode(ids[:, :9], torch.tensor(lengths, device=device))
            first, state = model.step(start, model.start(memory), memory)
            second, state = model.step(start + 5, state, memory)
            found += [first, second, *(state[name] for name in sorted(state))]
    loss = model.loss(ids)
    loss.backward()
    found += [loss, *(p.grad for p in model.parameters() if p.grad is not None)]
    return [tensor.detach().cpu() for tensor in found]


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("tied", [True, False])
def test_as_on_a_cpu(build: Any, kv_heads: int, tied: bool) -> None:
    """In single precision: all that is computed, and all gradients."""
    ids = torch.randint(3, VOCAB, (2, 30), generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        numbers(build(kv_heads=kv_heads, tied=tied), device, ids)
        for device in (DEVICE, "cpu")
    )
    assert len(ours) > 20
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_table_of_weights(masked: bool, dtype: torch.dtype) -> None:
    """Groups of heads over 4,096 words, forwards and back, in less than half of it."""
    n, heads, kind = 4096, 8, {"dtype": dtype, "device": DEVICE}
    query, key, value = (
        torch.randn(1, h, n, 64, requires_grad=True, **kind) for h in (heads, 2, 2)
    )
    seen = causal(n, torch.device(DEVICE))[None, None] if masked else None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    grouped_attention(query, key, value, seen, 0.0, not masked).sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < n * n * heads * query.element_size() / 2
