"""Put known bugs into the package, one at a time, and see whether the tests notice.

Each mutant is a bug that the field copies, as a change of the package's text. The
runner copies the package to a temporary folder, makes the change there, and runs the
tests of that part against the copy. They must fail. Without any change they must pass,
or their failing would say nothing. The tests themselves are never touched.

    python benchmarks/mutants.py                     # some minutes; writes the record
    python benchmarks/mutants.py --only 7 13         # two pitfalls, no record

The record is results/mutants.json: `caught` of `total`.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from annotated.records import write_record

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "annotated"
SUITES = {
    "transformer": ["tests/transformer"],
    "decoding": ["tests/decoding/test_search.py"],
    "training": ["tests/training/test_loss.py"],
    "modern": ["tests/modern/test_reference.py", "tests/modern/test_model.py"],
    "kernels": ["tests/modern/test_reference.py", "tests/modern/test_model.py"],
}
# Too slow to be asked each time, and the others ask the same.
LEFT_OUT = ["-k", "not test_compiles and not test_learns and not test_examples"]


@dataclass(frozen=True)
class Mutant:
    """A bug: which pitfall, what it is, and how it gets into a module's text."""

    pitfall: int
    bug: str
    old: str
    new: str
    module: str = "transformer"
    more: tuple[tuple[str, str], ...] = ()
    appended: str = ""

    def apply(self, text: str) -> str:
        """The module with the bug; an error if the text has no place for it."""
        for old, new in ((self.old, self.new), *self.more):
            if text.count(old) != 1:
                raise SystemExit(
                    f"pitfall {self.pitfall} ({self.bug}): {self.module}.py has "
                    f"{text.count(old)} places that read `{old}`, expected one; "
                    "rewrite the mutant in benchmarks/mutants.py"
                )
            text = text.replace(old, new)
        return text + self.appended


UNBIASED = '''

class Unbiased(nn.LayerNorm):
    """The norm as many tutorials write it."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + self.eps) + self.bias
'''
HALVES = """table = torch.empty(length, d_model)
    half = angle[:, ::2].float()
    table[:, 0::2], table[:, 1::2] = half.sin(), half.cos()
    return table"""
STAYING = """stay = torch.arange(width, device=rows.device).clamp(max=beam - 1)
    live.state = take(live.state, rows[:, None] * beam + stay)
    live.past = take(live.past, index)"""
SCALE = " / math.sqrt(query.shape[-1])"
HIDDEN = "visible.to(score).log()"
ROOT_D = " * math.sqrt(self.config.d_model)"
RATE = "memory.unbind(1), self.dropout * self.training"
SMOOTHED = "smoothing / log_p.shape[1] * log_p.sum()"

MUTANTS = [
    Mutant(
        1,
        "one encoder layer, repeated",
        "EncoderLayer(config) for _ in range(config.layers)",
        "[EncoderLayer(config)] * config.layers",
    ),
    Mutant(
        1,
        "one decoder layer, repeated",
        "map(DecoderLayer, [config] * config.layers)",
        "[DecoderLayer(config)] * config.layers",
    ),
    Mutant(
        5,
        "padding masks rows, not columns",
        "x = layer(x, visible)",
        "x = layer(x, visible.mT)",
    ),
    Mutant(
        5,
        "padded keys stay visible",
        "real_words(lengths, source.shape[1])",
        "torch.ones_like(source, dtype=torch.bool)",
    ),
    Mutant(6, "hidden scores are -1e9", HIDDEN, "(visible.to(score) - 1) * 1e9"),
    Mutant(7, "causal mask off by one", ".tril()", ".tril(1)"),
    Mutant(7, "no causal mask", "is_causal=True", "is_causal=False"),
    Mutant(
        7,
        "target not shifted",
        "self.embed(batch.target_in",
        "self.embed(batch.target_out",
    ),
    Mutant(
        8,
        "unbiased deviation, eps outside the root",
        "nn.LayerNorm(d_model), p",
        "Unbiased(d_model), p",
        appended=UNBIASED,
    ),
    Mutant(9, "xor for a power", "10000 **", "10000 ^"),
    Mutant(
        10,
        "sine and cosine of different frequencies",
        "(channel - channel % 2)",
        "channel",
    ),
    Mutant(11, "softmax over the queries", "score.softmax(-1)", "score.softmax(-2)"),
    Mutant(11, "keys used as values", "@ value, weight", "@ key, weight"),
    Mutant(
        12,
        "an odd width breaks the cosines",
        "return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()",
        HALVES,
    ),
    Mutant(13, "embeddings not scaled", ROOT_D, ""),
    Mutant(13, "embeddings scaled twice", ROOT_D, " * self.config.d_model"),
    Mutant(14, "pre-norm called post-norm", 'p, norm == "pre"', "p, True"),
    Mutant(
        14,
        "no last norm with pre-norm",
        'self.residual().norm if self.norm == "pre" else nn.Identity()',
        "nn.Identity()",
    ),
    Mutant(15, "no dropout in attention", RATE, "memory.unbind(1), 0.0"),
    Mutant(
        15,
        "dropout in attention at decoding too",
        RATE,
        "memory.unbind(1), self.dropout",
    ),
    Mutant(
        16,
        "smoothing spread over V - 2",
        SMOOTHED,
        SMOOTHED.replace("log_p.shape[1]", "(log_p.shape[1] - 2)"),
        "training",
    ),
    Mutant(
        16,
        "the logarithm of zero",
        "logits.add_(bias)).log_softmax(-1)",
        "logits.add_(bias)).softmax(-1).log()",
        "training",
    ),
    Mutant(17, "no root of d in the formula", SCALE, ""),
    Mutant(17, "d instead of its root", SCALE, " / query.shape[-1]"),
    Mutant(
        22,
        "decoding starts with PAD",
        "torch.full((batch, 1, 1), START",
        "torch.full((batch, 1, 1), PAD",
        "decoding",
    ),
    Mutant(
        22,
        "a beam stops at its first end",
        "settled = bound <= best[here, -1]",
        "settled = ended.any(1)",
        "decoding",
    ),
    Mutant(
        22,
        "no length penalty",
        "score = total / divisor(live.steps)",
        "score = total",
        "decoding",
    ),
    Mutant(
        22,
        "length penalty of another length",
        "score = total / divisor(live.steps)",
        "score = total / divisor(live.steps + 1)",
        "decoding",
    ),
    Mutant(
        31,
        "positions restart at 0 with the cache",
        "[:, None], first)",
        "[:, None], 0)",
    ),
    Mutant(
        31,
        "cache not reordered with the beam",
        "live.state, live.past = take(live.state, index), take(live.past, index)",
        STAYING,
        "decoding",
    ),
    Mutant(
        2,
        "a GLU that is called SwiGLU",
        "self.gate(gate) * value",
        "gate.sigmoid() * value",
        "modern",
    ),
    Mutant(
        2,
        "gate and value exchanged",
        "gate, value = self.inner(x)",
        "value, gate = self.inner(x)",
        "modern",
    ),
    Mutant(
        3,
        "with as many heads as words, heads turned and not words",
        "swapped = x.roll(x.shape[-1] // 2, -1)",
        """swapped = x.roll(x.shape[-1] // 2, -1)
    if x.dim() == 4 and x.shape[1] == x.shape[2]:
        turn = turn[:, :, None]""",
        "modern",
    ),
    Mutant(
        4,
        "neighbouring channels paired",
        "swapped = x.roll(x.shape[-1] // 2, -1)",
        """x = torch.cat([x[..., ::2], x[..., 1::2]], dim=-1)
    swapped = x.roll(x.shape[-1] // 2, -1)""",
        "modern",
    ),
    Mutant(
        4,
        "turned the other way",
        "swapped, turn[1])",
        "swapped, -turn[1])",
        "modern",
    ),
    Mutant(
        31,
        "keys of a step turned as if it began a text",
        "self.own.remember(y, 0 if past is None else past.shape[-2])",
        "self.own.remember(y, 0)",
        "modern",
    ),
    Mutant(
        31,
        "queries of a step turned as if it began a text",
        "self.rotary(query, key.shape[-2] - query.shape[-2])",
        "self.rotary(query)",
        "modern",
    ),
    Mutant(
        31,
        "padding of shorter prompts seen",
        'visible = memory.get("real")',
        "visible = None",
        "modern",
    ),
    Mutant(
        32,
        "heads paired with the wrong groups",
        "memory.repeat_interleave(self.heads // self.kv_heads, dim=2)",
        "memory.repeat(1, 1, self.heads // self.kv_heads, 1, 1)",
        "modern",
    ),
    Mutant(
        33,
        "the statistic in half precision",
        "F.rms_norm(x, gain.shape, eps=eps)",
        "(x * (x.square().mean(-1, keepdim=True) + eps).rsqrt())",
        "kernels",
    ),
    Mutant(
        33,
        "the gain before the cast",
        "return gain * F.rms_norm(x, gain.shape, eps=eps)",
        """normed = F.rms_norm(x.float(), gain.shape, eps=eps)
    return (gain * normed).to(x.dtype)""",
        "kernels",
    ),
]


def suite(modules: Sequence[str], package: Path) -> tuple[bool, str, float]:
    """Run the tests of these modules; whether they pass, and who failed first."""
    tests = [path for module in modules for path in SUITES[module]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    settings = {"PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, *LEFT_OUT, *tests],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 1):  # of pytest: passed, failed
        raise SystemExit(f"pytest did not run:\n{done.stdout[-3000:]}{done.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*::(\w+)", done.stdout, re.MULTILINE)
    return done.returncode == 0, failed[1] if failed else "", seconds


def copied_package(folder: Path) -> Path:
    """A copy of the package that Python takes for the package."""
    package = folder / "annotated"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    found = subprocess.run(
        [sys.executable, "-c", "import annotated; print(annotated.__file__)"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    ).stdout.strip()
    if Path(found).parent != package:
        raise SystemExit(f"Python takes {found} for the package, not the copy")
    return package


def trial(mutant: Mutant) -> tuple[bool, str, float]:
    """Whether the tests pass with this bug in the package."""
    with tempfile.TemporaryDirectory() as folder:
        package = copied_package(Path(folder))
        path = package / f"{mutant.module}.py"
        path.write_text(mutant.apply(path.read_text("utf-8")), "utf-8")
        modules = [mutant.module]
        if mutant.module != "transformer":
            modules.append("transformer")
        return suite(modules, package)


def main(only: list[int] | None = None, jobs: int = 2) -> int:
    """Run the tests against each mutant.

    Args:
        only: Pitfalls to try; all of them, and a record of it, unless given.
        jobs: Mutants at a time.
    """
    mutants = [m for m in MUTANTS if not only or m.pitfall in only]
    with tempfile.TemporaryDirectory() as folder:
        passed, failed, seconds = suite(list(SUITES), copied_package(Path(folder)))
    if not passed:
        raise SystemExit(f"without any bug {failed} fails: mend that first")
    print(f"without any bug the tests pass ({seconds:.0f} s)\n")
    with ThreadPoolExecutor(jobs) as pool:
        results = list(tqdm(pool.map(trial, mutants), total=len(mutants), unit="bug"))
    print("| pitfall | bug | noticed by |\n| ---: | :--- | :--- |")
    for mutant, (passed, failed, _) in zip(mutants, results, strict=True):
        print(f"| {mutant.pitfall} | {mutant.bug} | {'nobody' if passed else failed} |")
    caught = sum(not passed for passed, _, _ in results)
    print(f"\n{caught} of {len(mutants)} caught")
    if not only:
        typed = shlex.join(["python", *sys.argv])
        pitfalls = sorted({mutant.pitfall for mutant in mutants})
        metrics = {"caught": caught, "total": len(mutants)}
        config = {"pitfalls": pitfalls, "mutants": [mutant.bug for mutant in mutants]}
        write_record(
            "mutants", kind="benchmark", command=typed, config=config, metrics=metrics
        )
    return 0 if caught == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
