"""A step as one program: the same words as without, for any length."""

import os
import shutil
from collections.abc import Callable

import pytest
import torch

from annotated.cli import main
from annotated.data import DataError
from annotated.kernels import compiled

COMPILER = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"needs a C++ compiler, {COMPILER}"
)

SEARCHES = """
import torch
from torch._dynamo.utils import counters
from annotated.decoding import beam_search, greedy, search_all
from annotated.kernels import compiled
from annotated.transformer import Config, Transformer

torch.manual_seed(0)
model = Transformer(Config(1, 8, 12, 2, 0.0, "pre"), 14)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
sources = [[5, 6, 7, 8][: n % 4 + 1] * 3 for n in range(6)]
# Some lengths are also the model's width or its number of heads.
sources += [[9] * n for n in (1, 2, 4, 8, 12)]


def words(**how):
    found = search_all(model, sources, progress=False, max_length=15, **how)
    return [hypothesis.ids for some in found for hypothesis in some]


ways = {"search": greedy, "batch": 1}, {"search": beam_search, "beam": 3, "batch": 1}
plain = [words(**how) for how in ways]
assert len({tuple(ids) for ids in plain[0]}) > 2
model.step = compiled(model.step)
assert words(**ways[0]) == plain[0]
assert counters["stats"]["unique_graphs"] > 0
assert words(**ways[1]) == plain[1]
print("the same")
"""

APART = """
import torch
from annotated.kernels import compiled
from annotated.transformer import Config, Transformer

torch.manual_seed(0)
models = [Transformer(Config(n, 8, 12, 2), 14).eval() for n in (1, 1, 2)]
token, source = torch.tensor([[5]]), torch.tensor([[6, 7, 8]])


def close(model):
    memory = model.encode(source, torch.tensor([3]))
    state = model.start(memory)
    for _ in range(4):
        plain, _ = Transformer.step(model, token, state, memory)
        fast, state = model.step(token, state, memory)
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)


with torch.inference_mode():
    for model in models:
        model.step = compiled(model.step)
        close(model)
    for model in models:
        close(model)
        for parameter in model.parameters():
            parameter.mul_(-2)
        close(model)
        model.output.weight = torch.nn.Parameter(torch.randn(14, 8))
        close(model)
print("the same")
"""

WRITES = """
import torch
from annotated.guessing import rounded
from annotated.language import Sampling, Writer
from annotated.modern import Config, LanguageModel
from annotated.subwords import Words

torch.manual_seed(0)
words = Words.learn(["one two three four five six seven eight nine ten"])
model = LanguageModel(Config(1, 32, 48, 2, kv_heads=1), len(words)).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(6.0)
writer, how = Writer(model, words, ahead=3), Sampling(0.0, longest=12)
prompts = ["one two three", "ten nine"]
plain = [writer.write([prompt], how) for prompt in prompts]
writer.compile()
assert [writer.write([prompt], how) for prompt in prompts] == plain
assert "read" in vars(model) and "read" not in vars(rounded(model))
print("the same")
"""


@needs_compiler
@pytest.mark.parametrize(
    "program", [SEARCHES, APART, WRITES], ids=["searches", "apart", "writes"]
)
def test_compiled_finds_the_same(program: str, alone: Callable[..., str]) -> None:
    """In a process of its own, where no call is checked for its shapes.

    Programs of several models are told apart, and see weights that change.
    """
    assert alone("-c", program) == "the same"


@needs_compiler
def test_the_first_words_go_the_old_way() -> None:
    """Also a text without a past, and one whose past has a single word."""
    seen, ids = [], torch.zeros(1, 1, dtype=torch.int64)

    def read(ids: object, past: object = None, visible: object = None) -> None:
        seen.append(past)

    either = compiled(read)
    short = {"past.0": torch.zeros(1, 2, 1, 1, 4)}
    for past in (None, {}, short):
        either(ids, past)
    assert seen == [None, {}, short]


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DataError, match=r"no no-such-compiler here: install"):
        compiled(print)


@pytest.mark.parametrize("command", ["translate a", "generate"])
def test_not_on_a_gpu(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the option is for is said at once."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main([*command.split(), "--compile", "--device", "cuda"]) == 2
    assert "--compile: on a CPU only" in capsys.readouterr().err


@needs_compiler
def test_translate_compiled(alone: Callable[..., str]) -> None:
    """The command, with the model of the book."""
    words = ["-m", "annotated", "translate", "A dog runs on the beach.", "--quiet"]
    words += ["--batch", "1", "--beam", "1"]
    assert alone(*words) == alone(*words, "--compile") != ""
