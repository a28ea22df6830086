"""Run named commands one after another, saying what runs and how long it took.

    python scripts/steps.py [--keep-going] [--minutes 25] "title::command" …

With --keep-going a failure does not stop the steps after it. The last lines say where
the time went, and, where a step ran pytest, how many tests passed in all. More than so
many minutes are worth a warning, and no failure: a machine may be busy.
"""

# The first that a newcomer's Python reads, be it too old for all else.
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

# The end of a pytest run, as in "== 3 passed, 1 skipped in 0.52s ==" with or without
# the rules around it.
SUMMARY = re.compile(r"^=* ?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s(?: \([\d:]+\))? ?=*$")
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected)")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


@dataclass
class Step:
    """One command, and after it has run: its exit status, seconds and test counts."""

    title: str
    command: str
    status: int | None = None
    seconds: float = 0.0
    tests: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Run the command, pass its output on, and count the tests it reports."""
        start = time.monotonic()
        with subprocess.Popen(
            self.command,
            shell=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                self.tests.update(count_tests(line))
        self.status = process.returncode
        self.seconds = time.monotonic() - start


def count_tests(line: str) -> Counter[str]:
    """Return what a pytest summary line counts; nothing for any other line.

    >>> count_tests("=== 3 passed, 1 skipped in 0.52s ===")
    Counter({'passed': 3, 'skipped': 1})
    """
    summary = SUMMARY.match(COLOUR.sub("", line).strip())
    if summary is None:
        return Counter()
    return Counter(
        {word.rstrip("s"): int(n) for n, word in COUNT.findall(summary.group(1))}
    )


def duration(seconds: float) -> str:
    """Write a time as people say it: 4 s, 2 min 5 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def report(steps: list[Step], minutes: float | None = None) -> None:
    """Print each step's share of the time, and the tests in all."""
    total = sum(step.seconds for step in steps)
    print("\nWhere the time went:")
    for step in steps:
        if step.status is None:
            outcome = "not run"
        elif step.status:
            outcome = f"FAILED ({step.status})"
        else:
            outcome = "ok"
        share = step.seconds / total if total else 0
        print(
            f"  {duration(step.seconds):>12}  {share:4.0%}  {outcome:<11} {step.title}"
        )
    of = f"of {minutes:g} min" if minutes else ""
    print(f"  {duration(total):>12}  {of:<17} in all")
    if minutes and total > 60 * minutes:
        print(f"WARNING: over {minutes:g} minutes; make the longest part shorter")
    tests: Counter[str] = Counter()
    for step in steps:
        tests.update(step.tests)
    failed = [step.title for step in steps if step.status != 0]
    if failed:
        print(f"failed or not run: {', '.join(failed)}")
    if tests:
        order = ["failed", "error", "passed", "skipped", "xfailed", "xpassed"]
        words = [f"{tests[word]} {word}" for word in order if tests[word]]
        print(f"{', '.join(words)} in {duration(total)}")
    else:
        print(f"{'failed' if failed else 'done'} in {duration(total)}")


def main(arguments: list[str]) -> int:
    """Run the steps; the exit status is 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("steps", nargs="+", metavar="title::command")
    options = parser.parse_args(arguments)
    steps = [Step(*step.split("::", 1)) for step in options.steps]
    for number, step in enumerate(steps, start=1):
        print(f"\nstep {number} of {len(steps)}: {step.title}", flush=True)
        step.run()
        verdict = "FAILED, " if step.status else ""
        print(
            f"step {number} of {len(steps)}: {step.title}: {verdict}"
            f"took {duration(step.seconds)}",
            flush=True,
        )
        if step.status and not options.keep_going:
            break
    report(steps, options.minutes)
    return int(any(step.status != 0 for step in steps))


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit("stopped") from None
