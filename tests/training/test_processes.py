"""Two processes train as one does, and stop together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from annotated.parallel import Batch
from annotated.training import (
    Recipe,
    TrainingError,
    on_silence,
    on_terminate,
    processes,
    read_metrics,
    train,
)

HERE = Path(__file__).parent
STEADY = {"schedule": "constant", "warmup": 0, "learning_rate": 1e-2}
TENS = tuple(range(0, 101, 10))


class Pressed:
    """Batches during which somebody presses Ctrl-C."""

    def __init__(self, batches: Any, number: int) -> None:
        self.batches, self.number = batches, number

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches."""
        for i, batch in enumerate(self.batches.epoch(n, start)):
            if i == self.number:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch


def one(fresh: Any, batches: Any, recipe: Recipe, **options: Any) -> nn.Module:
    """A run on one process, in 64 bits: the model afterwards."""
    model = fresh(dropout=0.0).double()
    train(model, batches, recipe, progress=False, **options)
    return model


def equal(ours: Any, theirs: Any) -> None:
    """Equal tensors, up to the order in which their parts were added."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def runs(fresh: Any, listed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What several.py left behind on two processes, and two runs that it went on with.

    These were begun on one process and interrupted after four batches.
    """
    folder = tmp_path_factory.mktemp("runs")
    for name, updates, accumulate in (("one", 8, 2), ("odd", 7, 1)):
        recipe = Recipe(updates, ema=0.9, accumulate=accumulate, **STEADY)
        one(fresh, Pressed(listed(*TENS), 3), recipe, folder=folder / name)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(HERE / "several.py"), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stderr)
    return folder


def both(runs: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two processes had at the end of a run."""
    first, second = (torch.load(runs / f"{name}.{rank}.pt") for rank in (0, 1))
    return first, second


def test_gradient_is_that_of_the_large_batch(
    fresh: Any, listed: Any, runs: Path
) -> None:
    """Four uneven batches on two processes, two on each, and their union on one."""
    recipe = Recipe(1, clip=0.0, **STEADY)
    wanted = one(fresh, listed(0, 60), recipe)
    for left in both(runs, "gradient"):
        equal(left["gradients"], [p.grad for p in wanted.parameters()])
        equal(left["weights"], wanted.parameters())
        tokens = sum(batch.tokens for batch in listed(0, 60).epoch())
        assert left["history"][-1]["tokens"] == tokens


def test_begun_on_two_resumed_on_one(fresh: Any, listed: Any, runs: Path) -> None:
    """The second process is interrupted, both stop; one process ends the run.

    Equal to a run on one process alone, not bit for bit: gradients are added in another
    order.
    """
    for left in both(runs, "two"):
        assert left["stopped"] == "interrupted"
    assert read_metrics(runs / "two") == []
    batches, recipe = listed(*TENS), Recipe(8, ema=0.9, **STEADY)
    wanted = one(fresh, batches, Recipe(8, ema=0.9, accumulate=2, **STEADY))
    rest = one(fresh, batches, recipe, folder=runs / "two")
    equal(rest.parameters(), wanted.parameters())


def test_begun_on_one_resumed_on_two(fresh: Any, listed: Any, runs: Path) -> None:
    """The same the other way round, and both processes have the weights."""
    recipe = Recipe(8, ema=0.9, accumulate=2, **STEADY)
    wanted = one(fresh, listed(*TENS), recipe)
    for left in both(runs, "one"):
        assert left["stopped"] == "finished"
        equal(left["weights"], wanted.parameters())


def test_one_batch_cannot_be_shared(fresh: Any, listed: Any, runs: Path) -> None:
    """A run with one batch an update goes on with two, and says so once."""
    twice = listed(0, 10, 20, 30, 40, 60, 80, 100)
    wanted = one(fresh, twice, Recipe(7, ema=0.9, **STEADY))
    for left in both(runs, "odd"):
        equal(left["weights"], wanted.parameters())
    said = "batches an update: 2 from here on, not 1, which 2 processes cannot share"
    assert (runs / "said").read_text().count(said) == 1


def test_tables_of_positions_grow_apart(growing: Any, runs: Path) -> None:
    """Only one process meets long texts; the weights are those of one process alone."""
    wanted, batches = growing
    recipe = Recipe(4, accumulate=2, **STEADY)
    train(wanted, batches, recipe, progress=False)
    for left in both(runs, "table"):
        equal(left["weights"], wanted.parameters())


def test_nan_in_one_process_stops_both(runs: Path) -> None:
    """At the same update, with the same error."""
    first, second = both(runs, "nan")
    assert "update 3: the loss is nan" in first["error"]
    assert first["error"] == second["error"]


def test_patience_on_several_processes(runs: Path) -> None:
    """Process 0 validates; the other stops with it and has its history and weights."""
    first, second = both(runs, "patience")
    assert first["stopped"] == second["stopped"] == "patience"
    assert first["history"] == second["history"] == read_metrics(runs / "patience")
    assert [row["update"] for row in first["history"]] == [2, 4, 6]
    for a, b in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(a, b)


def test_alone_nothing_is_joined() -> None:
    """Without torchrun there is one process, and no group."""
    with processes("cpu") as here:
        assert here == (0, 1, "cpu")
        assert here.told("so") == "so"
        assert not torch.distributed.is_initialized()


def test_last_words_at_the_end_signal() -> None:
    """What torchrun sends is heard also by a process that waits."""
    program = """
import os, signal, time
from annotated.training import on_terminate
with on_terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith("a process of this run was lost, and the others")


def test_signals_are_as_before_afterwards() -> None:
    """Leaving the group leaves nothing behind."""
    before = signal.getsignal(signal.SIGTERM), threading.active_count()
    with on_terminate():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert signal.getsignal(signal.SIGTERM) == before[0]
    for _ in range(100):
        if threading.active_count() == before[1]:
            break
        time.sleep(0.05)
    assert threading.active_count() == before[1]


def test_only_a_lost_connection_is_told_as_one() -> None:
    """Other errors come as they are."""
    said = "[gloo/transport/tcp/pair.cc:547] Connection closed"
    with pytest.raises(TrainingError, match="process of this run was"), on_silence():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes differ"), on_silence():
        raise RuntimeError("shapes differ")


def test_no_gpu_for_this_process(
    fresh: Any, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More processes than GPUs."""
    names = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "here"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="process 2 on this machine has no GPU"):
        train(fresh(), listed(0, 9), Recipe(1), device="cuda", progress=False)


def test_not_torchrun(fresh: Any, listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WORLD_SIZE that something else has set."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="RANK, LOCAL_RANK, MASTER_ADDR not set"):
        train(fresh(), listed(0, 9), Recipe(1), progress=False)
