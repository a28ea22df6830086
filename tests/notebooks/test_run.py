"""Each notebook runs as in Colab, and every output is the one that is committed.

One execution proves both. nbval runs the cells on a kernel whose environment has
Colab's packages and not ours, in an empty folder; the first cell installs a wheel that
was built from this checkout. nbval compares outputs. The clock is read as well: a
notebook that runs longer than the minutes it allows itself is reported, and the test
fails when it takes several times as long. A machine that others share has been seen to
take twice its own time, which says nothing about the notebook.
"""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

SANITIZE = Path(__file__).with_name("sanitize.cfg")
DEFAULT_MINUTES = 3.0
CELL_SECONDS = 600
SLOW_MACHINE = 3.0


def test_runs_as_in_colab(
    notebook: Path,
    tmp_path: Path,
    colab_environment: dict[str, str],
    without_annotated: Callable[[], None],
) -> None:
    """All cells run, outputs are as committed, and the time is not out of bounds."""
    without_annotated()
    results, said = run(notebook, tmp_path, colab_environment)
    assert results, f"{notebook.name}: nothing ran, for this reason:\n{said}"
    setup, *rest = results
    failed = sum(not cell.passed for cell in (setup, *rest))
    assert not failed, f"{notebook.name}: {failed} cells fail:\n{said}"
    running = sum(cell.seconds for cell in rest)
    allowed = minutes(notebook)
    print(
        f"{notebook.stem}: {running:.0f} s of the {60 * allowed:.0f} s it may take, "
        f"after {setup.seconds:.0f} s of installing"
    )
    late = (
        f"{notebook.name} ran {running / 60:.1f} minutes, more than the {allowed:g} of "
        "its metadata (annotated.minutes): make it faster or, with a reason, raise it"
    )
    assert running < SLOW_MACHINE * 60 * allowed, late
    if running > 60 * allowed:
        print(f"TOO SLOW, or the machine is today: {late}")


def test_notices_what_a_reader_would_notice(
    tmp_path: Path,
    colab_environment: dict[str, str],
    without_annotated: Callable[[], None],
) -> None:
    """A cell fails for a stale output, and for what is not there in Colab."""
    without_annotated()
    cells = {
        "print(1 + 1)  # as committed": ("2", True),
        "print(1 + 1)  # stale": ("3", False),
        "import jupyter_book  # not in Colab": ("", False),
        "import annotated.cli  # not installed yet": ("", False),
        "import pathlib; print(list(pathlib.Path().glob('*.toml')))": ("[]", True),
    }
    book = new_notebook()
    for number, (source, (committed, _)) in enumerate(cells.items(), start=1):
        cell = new_code_cell(source, execution_count=number, id=f"cell-{number}")
        if committed:
            text = f"{committed}\n"
            cell.outputs = [new_output("stream", name="stdout", text=text)]
        book.cells.append(cell)
    nbformat.write(book, tmp_path / "small.ipynb")
    results, _ = run(tmp_path / "small.ipynb", tmp_path, colab_environment)
    assert [cell.passed for cell in results] == [passes for _, passes in cells.values()]


@dataclass(frozen=True)
class Result:
    """What became of a code cell."""

    passed: bool
    seconds: float


def run(
    notebook: Path, tmp_path: Path, environment: dict[str, str]
) -> tuple[list[Result], str]:
    """Run a copy of the notebook in an empty folder: cell by cell, and what it said."""
    folder = tmp_path / "content"
    folder.mkdir()
    shutil.copy(notebook, folder)
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\n", encoding="utf-8")
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-rfE"]
    command += ["-c", str(settings), "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--nbval", "--nbval-kernel-name", "colab"]
    command += ["--nbval-sanitize-with", str(SANITIZE)]
    command += ["--nbval-cell-timeout", str(CELL_SECONDS)]
    command += ["--junitxml", str(report), str(folder / notebook.name)]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    cells = [
        Result(passed=len(case) == 0, seconds=float(case.get("time", 0)))
        for case in ElementTree.parse(report).iter("testcase")
    ]
    return cells, done.stdout


def minutes(notebook: Path) -> float:
    """Return how long the notebook may run: its own word, or three minutes."""
    book = nbformat.read(notebook, as_version=4)
    return float(book.metadata.get("annotated", {}).get("minutes", DEFAULT_MINUTES))
