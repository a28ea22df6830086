"""JoeyNMT's side of `benchmarks/attention.py`, run by the Python that has JoeyNMT.

JoeyNMT reads a configuration, loads its data and trains in its own loop, fed by its own
loader. The loader alone is wrapped: where a turn ends it waits, and so the loop does,
until the benchmark asks for the next turn. The clock runs from the moment at which the
loop asks for a turn's first batch to the moment at which it has learned from the last.

Orders come as lines of JSON on standard input, answers go as lines of JSON to standard
output: `{"train": 40000}` trains on at least so many target tokens, `{"beam": 5}`
translates the test sentences with JoeyNMT's `predict`. The end of the input ends all.
"""

import importlib.metadata
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from joeynmt.config import parse_global_args, set_validation_args
from joeynmt.helpers import set_seed
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else is printed goes to the log


def answer(**values: Any) -> None:
    """One line to the benchmark."""
    print(json.dumps(values), file=ANSWERS, flush=True)


class Turns:
    """A loader that hands out its batches turn by turn."""

    def __init__(self, loader: Any, translate: Any) -> None:
        self.loader, self.translate = loader, translate
        self.batch_sampler = loader.batch_sampler
        self.wanted = self.tokens = self.updates = 0
        self.clock = self.cpu = 0.0

    def wait(self) -> None:
        """Obey orders until one asks for training; leave when there are no more."""
        for line in sys.stdin:
            order = json.loads(line)
            if "train" in order:
                self.wanted, self.tokens, self.updates = order["train"], 0, 0
                self.clock, self.cpu = time.perf_counter(), time.process_time()
                return
            answer(**self.translate(order))
        os._exit(0)  # not through the loop, which would write a checkpoint

    def __iter__(self) -> Any:
        if not self.wanted:
            self.wait()
        for batch in self.loader:
            yield batch
            self.tokens += batch.ntokens
            self.updates += 1
            if self.tokens >= self.wanted:
                answer(
                    tokens=self.tokens,
                    updates=self.updates,
                    seconds=time.perf_counter() - self.clock,
                    cpu_seconds=time.process_time() - self.cpu,
                )
                self.wait()


def main() -> None:
    """Prepare as `joeynmt train` does, then train and translate on demand."""
    logging.basicConfig(level=logging.INFO)
    config = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.set_num_threads(config["threads"])
    args = parse_global_args(config, mode="train")
    set_seed(args.seed)
    model, train_data, _, test_data = prepare(args, rank=0, mode="train")
    trainer = TrainManager(
        rank=0,
        model=model,
        model_dir=args.model_dir,
        device=args.device,
        autocast=args.autocast,
        seed=args.seed,
        train_args=args.train,
        dev_args=set_validation_args(args.test),
    )

    def translate(order: dict[str, Any]) -> dict[str, Any]:
        """All test sentences by beam search."""
        clock, cpu = time.perf_counter(), time.process_time()
        *_, found, raw, _, _ = predict(
            model=model,
            data=test_data,
            device=args.device,
            n_gpu=0,
            args=args.test._replace(beam_size=order["beam"]),
            autocast=args.autocast,
        )
        return {
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
            "tokens": sum(map(len, raw)),
            "sentences": [line.split() for line in found],
        }

    make_iter = train_data.make_iter
    train_data.make_iter = lambda **how: Turns(make_iter(**how), translate)
    packages = ("joeynmt", "torch", "numpy")
    answer(
        parameters=sum(p.numel() for p in model.parameters()),
        source_vocabulary=len(model.src_vocab),
        target_vocabulary=len(model.trg_vocab),
        versions={name: importlib.metadata.version(name) for name in packages},
    )
    trainer.train_and_validate(train_data=train_data, valid_data=test_data)


if __name__ == "__main__":
    main()
