"""Train in pieces: `torchrun --nproc-per-node N pieces.py FOLDER DEVICE`.

Two processes begin runs and go on with others, three end what two began. Each process
leaves what it has at the end of a run in FOLDER/RUN.RANK.pt.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from annotated.sharding import Pieces
from annotated.training import (
    Process,
    Recipe,
    Run,
    TrainingError,
    processes,
    showing,
    step,
    train,
)
from conftest import ALL, RECIPES, STEADY, TRAIN, VALIDATION, Before, fresh, options


class Runs:
    """The runs of a process."""

    def __init__(self, folder: Path, here: Process) -> None:
        self.folder, self.here = folder, here

    def __call__(self, name: str, kept: bool = False, **given: Any) -> None:
        """A run; what it leaves goes to a file."""
        model, batches = given.pop("model", fresh()), given.pop("batches", TRAIN)
        given = {"progress": False, "device": self.here.device} | given
        left: dict[str, Any] = {}
        try:
            folder = self.folder / name if kept else None
            history = train(model, batches, folder=folder, parallel=Pieces(), **given)
            left |= {"stopped": history.stopped, "history": list(history)}
        except TrainingError as error:
            left["error"] = str(error)
        own = dict(model.named_parameters())
        grads = {n: p.grad for n, p in own.items() if p.grad is not None}
        for kind, tensors in (("weights", own), ("gradients", grads)):
            whole = {n: t.detach().full_tensor().cpu() for n, t in tensors.items()}
            left[kind] = whole
        torch.save(left, self.folder / f"{name}.{self.here.rank}.pt")

    def held(self) -> None:
        """Bytes that a process has after an update, of each kind."""
        run = Run(fresh(), options("ema", 2)["recipe"], self.here, Pieces())
        step(run, TRAIN.batches[:4])
        weights: list[Any] = list(run.parameters.values())
        states = run.optimizer.state.values()
        kinds: dict[str, Any] = {
            "weights": weights,
            "gradients": [p.grad for p in weights],
            "averages": [t for s in states for t in s.values() if t.dim()],
            "ema": run.ema.values(),
        }
        sizes = {k: sum(t.to_local().nbytes for t in ts) for k, ts in kinds.items()}
        torch.save(sizes, self.folder / f"held.{self.here.rank}.pt")

    def watched(self) -> None:
        """Weights after two updates, with a validation between them and without."""
        left = []
        for validates in (False, True):
            run = Run(fresh(), options("ema", 2)["recipe"], self.here, Pieces())
            for _ in range(2):
                step(run, TRAIN.batches[:4])
                if validates:
                    with showing(run):
                        run.parallel.evaluate(run, VALIDATION)
            left.append({n: p.to_local() for n, p in run.parameters.items()})  # type: ignore[attr-defined]
        torch.save(left, self.folder / f"watched.{self.here.rank}.pt")

    def errors(self) -> None:
        """Checkpoints that cannot be read or written."""
        recipe = options("plain", 3)["recipe"]
        for name in ("damaged", "missing", "other"):
            if not self.here.rank:
                shutil.copytree(self.folder / "three-plain", self.folder / name)
                (part,) = (self.folder / name).glob("pieces-*/__1_0.distcp")
                if name == "damaged":
                    part.write_bytes(part.read_bytes()[:-9] + b"oh no!   ")
                if name == "missing":
                    part.unlink()
            self.here.told(None)
            model = fresh(32 if name == "other" else 24)
            self(name, True, recipe=recipe, model=model)

        def block() -> None:
            (self.folder / "blocked" / "pieces-0").write_text("in the way")

        stop = Before(TRAIN, 8, (lambda: None) if self.here.rank else block)
        self("blocked", True, recipe=recipe, batches=stop, save_every=0.0)

    def two(self) -> None:
        """All that two processes do."""
        second = self.here.rank == 1
        event = (
            (lambda: os.kill(os.getpid(), signal.SIGINT)) if second else lambda: None
        )
        self.held()
        self.watched()
        for name in RECIPES:
            three = options(name, 3)
            self(name, **three)
            self(f"two-{name}", True, **options(name, 6))  # begun by one, with copies
            for kind in ("one", "three"):  # who will go on
                self(f"{kind}-{name}", True, batches=Before(TRAIN, 13, event), **three)
        low = Recipe(1, precision="bf16", **ALL)
        self("bf16", recipe=low, model=fresh(double=False))
        model = fresh()

        @torch.no_grad()
        def spoil() -> None:
            model.norm.weight.to_local().fill_(torch.nan)

        stop = Before(TRAIN, 4, spoil if second else lambda: None)
        self("nan", recipe=Recipe(8, **STEADY), model=model, batches=stop)

    def three(self) -> None:
        """All that three do."""
        for name in RECIPES:
            self(f"three-{name}", True, **options(name, 3))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes(sys.argv[2]) as here:
        runs = Runs(Path(sys.argv[1]), here)
        if here.size == 3:
            runs.three()
        else:
            runs.two()
            runs.errors()
