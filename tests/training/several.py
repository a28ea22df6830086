"""Train on several processes: `torchrun --nproc-per-node 2 several.py FOLDER`.

The test starts this once. Each process leaves what it has at the end of each run in
FOLDER/RUN.RANK.pt: its weights, its gradients, why it stopped.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from annotated.parallel import Batch
from annotated.training import Recipe, TrainingError, processes, train
from conftest import Listed, Relay, cut, short_and_long, with_table

HALF = (0, 35, 48, 50, 60)  # batches of very different sizes
EVEN = tuple(range(0, 101, 10))
STEADY = {"schedule": "constant", "warmup": 0, "learning_rate": 1e-2}


def fresh() -> Relay:
    """The model of all these runs."""
    torch.manual_seed(5)
    return Relay(dropout=0.0).double()


class Before:
    """Batches with an event before one of them."""

    def __init__(self, batches: Listed, number: int, event: Callable[[], None]) -> None:
        self.batches, self.left, self.event = batches, number, event

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches."""
        for batch in self.batches.epoch(n, start):
            if not self.left:
                self.event()
            self.left -= 1
            yield batch


def interrupt() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def main(folder: Path, rank: int) -> None:
    """All runs, one after the other."""

    def run(name: str, batches: Any, recipe: Recipe, **options: Any) -> None:
        model, left = options.pop("model", None) or fresh(), dict[str, Any]()
        try:
            history = train(model, batches, recipe, progress=False, **options)
            left |= {"stopped": history.stopped, "history": list(history)}
        except TrainingError as error:
            left["error"] = str(error)
        left["weights"] = [p.detach() for p in model.parameters()]
        left["gradients"] = [p.grad for p in model.parameters()]
        torch.save(left, folder / f"{name}.{rank}.pt")

    even, second = Listed(cut(*EVEN)), rank == 1
    run("gradient", Listed(cut(*HALF)), Recipe(1, clip=0.0, accumulate=2, **STEADY))
    # Only the second process is interrupted, or has a weight that is no number.
    press = Before(even, 6, interrupt if second else lambda: None)
    run("two", press, Recipe(8, ema=0.9, **STEADY), folder=folder / "two")
    for name, updates, accumulate in (("one", 8, 2), ("odd", 7, 1)):
        recipe = Recipe(updates, ema=0.9, accumulate=accumulate, **STEADY)
        run(name, even, recipe, folder=folder / name)
    run("table", short_and_long(), Recipe(4, **STEADY), model=with_table())
    model = fresh()
    spoil = Before(even, 4, lambda: model.output.bias.data.fill_(torch.nan))
    run("nan", spoil if second else even, Recipe(8, **STEADY), model=model)
    bleu = iter([5.0, 4.0, 3.0, 9.0])
    run(
        "patience", even, Recipe(40, validate_every=2, patience=2, **STEADY),
        validation=even, score=lambda model: {"bleu": next(bleu)},
        folder=folder / "patience",
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes() as here:
        main(Path(sys.argv[1]), here.rank)
