"""JoeyNMT's side of `benchmarks/transformer.py`, run by the Python that has JoeyNMT.

It builds a Transformer from a file of settings and learns from batches that the
benchmark wrote, as JoeyNMT's own loop does: its batch, its model, its loss, its
clipping. The optimizer alone is another: JoeyNMT's configuration offers plain Adam, and
here it is the fused one, which is faster.

Orders come as lines of JSON on standard input, answers go as lines of JSON to standard
output: `{"train": [0, 1]}` learns from the first two batches. The end of the input ends
all.
"""

import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from joeynmt.batch import Batch
from joeynmt.builders import build_gradient_clipper
from joeynmt.model import build_model
from joeynmt.vocabulary import Vocabulary

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else is printed goes to the log


def answer(**values: Any) -> None:
    """One line to the benchmark."""
    print(json.dumps(values), file=ANSWERS, flush=True)


def vocabulary(size: int) -> Vocabulary:
    """So many words, of which the first three are our special symbols.

    JoeyNMT asks for an unknown word too. No batch has one, and it shares padding's id.
    """
    special = {
        "unk_token": "<pad>",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": None,
        "lang_tags": [],
        "unk_id": 0,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
    }
    return Vocabulary([str(i) for i in range(3, size)], SimpleNamespace(**special))


def as_batch(tensors: dict[str, torch.Tensor], words: Vocabulary) -> Batch:
    """One of our batches as JoeyNMT's."""
    return Batch(
        src=tensors["source"],
        src_length=tensors["source_lengths"],
        src_prompt_mask=None,
        trg=torch.cat([tensors["target_in"][:, :1], tensors["target_out"]], dim=1),
        trg_prompt_mask=None,
        indices=torch.arange(len(tensors["source"])),
        device=torch.device("cpu"),
        pad_index=words.pad_index,
        eos_index=words.eos_index,
    )


class Learner:
    """The model and all that an update needs."""

    def __init__(self, config: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.words = vocabulary(config["vocabulary"])
        self.model = build_model(config["model"], self.words, self.words)
        self.model.loss_function = ("crossentropy", config["smoothing"])
        rate, betas = config["learning_rate"], config["betas"]
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=rate, betas=betas, fused=True
        )
        self.clip = build_gradient_clipper(
            {"clip_grad_val": None, "clip_grad_norm": config["clip"]}
        )
        self.batches = torch.load(config["batches"])
        self.model.train()

    def learn(self, numbers: list[int]) -> dict[str, Any]:
        """Updates on some of the batches, and how long they took.

        JoeyNMT's loader would make the batches beside the training: not on the clock.
        """
        ready = [as_batch(self.batches[i], self.words) for i in numbers]
        clock, cpu = time.perf_counter(), time.process_time()
        for batch in ready:
            loss = self.update(batch)
        return {
            "tokens": sum(batch.ntokens for batch in ready),
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
            "loss": loss,
        }

    def update(self, batch: Batch) -> float:
        """What JoeyNMT's loop does with a batch."""
        batch.sort_by_src_length()
        loss, *_ = self.model(return_type="loss", **vars(batch))
        mean = batch.normalize(loss, normalization="tokens")
        mean.backward()
        self.clip(parameters=self.model.parameters())
        self.optimizer.step()
        self.model.zero_grad()
        return float(mean.item())


def main() -> None:
    """Build, then learn when asked."""
    config = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(config["threads"])
    learner = Learner(config)
    packages = ("joeynmt", "torch")
    answer(
        parameters=sum(p.numel() for p in learner.model.parameters()),
        versions={name: importlib.metadata.version(name) for name in packages},
    )
    for line in sys.stdin:
        answer(**learner.learn(json.loads(line)["train"]))


if __name__ == "__main__":
    main()
