"""Train in child processes and kill them: `python kill.py FOLDER`.

The test runs this in a process of its own, in which torch is imported once and has one
thread; each run is a fork of it. Prints how many runs were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from annotated.parallel import Batches
from annotated.training import Recipe, train
from conftest import Relay

KILLS = 20

torch.set_num_threads(1)
chance = random.Random(0)
rows = [
    [chance.randrange(3, 12) for _ in range(chance.randint(2, 8))] for _ in range(120)
]
batches = Batches(rows[:100], rows[:100], tokens=60)
validation = Batches(rows[100:], rows[100:], tokens=100, shuffle=False)


def score(model: Relay) -> dict[str, float]:
    """A score that draws random numbers."""
    return {"noise": torch.rand(()).item()}


def run(folder: Path) -> None:
    """One run, or what is left of it."""
    torch.manual_seed(3)
    average = {"ema": 0.9} if folder.name.endswith("ema") else {"average": 3}
    recipe = Recipe(150, warmup=10, accumulate=2, validate_every=25, **average)
    train(
        Relay(), batches, recipe, validation=validation, score=score, folder=folder,
        progress=False, save_every=0.0, log_every=10,
    )  # fmt: skip


def child(folder: Path, seconds: float) -> bool:
    """A run in a process that has so long to live; True if it came to its end."""
    pid = os.fork()
    if not pid:
        try:
            run(folder)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                sys.exit("a run failed by itself")
            return True
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main(folder: Path) -> None:
    """A whole run of each kind, then runs that are killed."""
    moments, killed = random.Random(), 0
    for number, kind in enumerate(["ema", "average", "ema", "average"] * 10):
        whole = folder / f"whole-{kind}"
        if not whole.exists():
            began = time.monotonic()
            child(whole, 600.0)
            lasts = time.monotonic() - began
        cut = folder / f"cut-{number}-{kind}"
        while not child(
            cut, moments.uniform(0.0, lasts / 5) if killed < KILLS else 600
        ):
            killed += 1
        if killed >= KILLS:
            break
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
