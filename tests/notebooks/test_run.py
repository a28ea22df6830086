"""Each notebook runs as in Colab, and every output is the one that is committed.

One execution proves both. nbval runs the cells on a kernel whose environment has
Colab's packages and not ours, in an empty folder; the first cell installs a wheel that
was built from this checkout. nbval compares outputs; the clock is compared with the
minutes that the notebook allows itself.
"""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import nbformat

SANITIZE = Path(__file__).with_name("sanitize.cfg")
DEFAULT_MINUTES = 3.0
CELL_SECONDS = 600


def test_runs_as_in_colab(
    notebook: Path,
    tmp_path: Path,
    colab_environment: dict[str, str],
    without_annotated: Callable[[], None],
) -> None:
    """All cells run, outputs are as committed, and the time is within the budget."""
    without_annotated()
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
    print(f"\n{notebook.stem}:", flush=True)
    status = subprocess.run(command, cwd=folder, env=colab_environment).returncode
    assert status == 0, f"{notebook.name}: see the cells above; make notebooks may help"
    seconds = cell_seconds(report)
    running = sum(seconds[1:])
    allowed = minutes(notebook)
    print(
        f"{notebook.stem}: {running:.0f} s of the {60 * allowed:.0f} s it may take, "
        f"after {seconds[0]:.0f} s of installing"
    )
    assert running < 60 * allowed, (
        f"{notebook.name} ran {running / 60:.1f} minutes, more than the {allowed:g} of "
        "its metadata (annotated.minutes): make it faster or, with a reason, raise it"
    )


def cell_seconds(report: Path) -> list[float]:
    """Return the time of each code cell, in order; the first one installs."""
    cases = ElementTree.parse(report).iter("testcase")
    return [float(case.get("time", 0)) for case in cases]


def minutes(notebook: Path) -> float:
    """Return how long the notebook may run: its own word, or three minutes."""
    book = nbformat.read(notebook, as_version=4)
    return float(book.metadata.get("annotated", {}).get("minutes", DEFAULT_MINUTES))
