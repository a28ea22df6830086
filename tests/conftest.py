"""What tests of several parts share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright
from torch import Tensor, nn
from torch.nn import functional as F

from annotated.parallel import Batch
from tangle.changes import uncommitted, untangled

ROOT = Path(__file__).parents[1]
DATA = os.environ.get("ANNOTATED_DATA")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def alone() -> Callable[..., str]:
    """Run Python in a process of its own; give what it prints."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lead from a failed test to the cell; say it when the tests saw another one."""
    say = terminalreporter.line
    if stale := untangled(ROOT):
        say(f"not in src/annotated yet, so not tested: {', '.join(stale)}")
        say("`make tangle` writes it; then test again")
    failed = {"failed", "error"} & set(terminalreporter.stats)
    if failed and (changed := uncommitted(ROOT)):
        say(f"changed since the last commit: {', '.join(changed)}")


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, or a reason to skip."""
    if not DATA:
        pytest.skip("ANNOTATED_DATA names no folder with the real corpora")
    monkeypatch.setenv("ANNOTATED_DATA", DATA)
    return Path(DATA)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start one Chromium for all tests; without one, skip, or in CI fail."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = "no Chromium found: install it (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI it must be there", pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny products are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stepped() -> Callable[..., tuple[Tensor, Tensor]]:
    """Logits and weights of the right target, one word at a time."""

    @torch.no_grad()
    def walk(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        memory = model.encode(batch.source, batch.source_lengths)
        state, logits, weights = model.start(memory), [], []
        state["attention"] = torch.zeros(len(batch.source), 1, batch.source.shape[1])
        for token in batch.target_in.split(1, dim=1):
            out, state = model.step(token, state, memory)
            logits.append(out)
            weights.append(state["attention"])
        return torch.cat(logits, 1), torch.cat(weights, 1)

    return walk


@pytest.fixture(scope="session")
def still() -> Callable[..., list[str]]:
    """Names of the parameters that a loss leaves without a gradient."""

    def search(model: nn.Module, batch: Batch) -> list[str]:
        real = batch.target_out != 0
        logits = model.output(model.features(batch)[real])
        F.cross_entropy(logits, batch.target_out[real]).backward()
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        ]

    return search
