"""Which cells were changed: since the package was written, and since the last commit.

A test that fails names a line of the package. What its reader wants to know is which
cell to look at, and whether the tests have seen it at all.
"""

import subprocess
from pathlib import Path

from tangle.back import segments
from tangle.book import read_book
from tangle.cells import MARKER
from tangle.files import TangleError, read_text
from tangle.package import PACKAGE, build, render


def differing(old: str, new: str) -> list[str]:
    """Addresses of the cells of a module that are not what they were, in order."""
    before = {name: text.rstrip() for name, _, text in segments(old)}
    return [
        name.removeprefix(MARKER)
        for name, _, text in segments(new)
        if name and before.get(name) != text.rstrip()
    ]


def untangled(root: Path) -> list[str]:
    """Cells that the package does not have as they are; a module without such a cell.

    Where the notebooks cannot be tangled, the fault.
    """
    try:
        contents = render(root, build(read_book(root)))
    except (TangleError, OSError) as error:
        return [str(error)]
    found = []
    for path, wanted in contents.items():
        there = read_text(path) or ""
        if there != (wanted or ""):
            name = path.relative_to(root).as_posix()
            found += differing(there, wanted or "") or [name]
    return found


def uncommitted(root: Path) -> list[str]:
    """Cells whose part of the package is not what git's last commit has."""
    found = []
    for name in _git(root, "diff", "--name-only", "--relative", "HEAD", "--", PACKAGE):
        old = "".join(_git(root, "show", f"HEAD:./{name.rstrip()}"))
        found += differing(old, read_text(root / name.rstrip()) or "")
    return found


def _git(root: Path, *words: str) -> list[str]:
    """What git prints, by lines: none where there is no git, or no repository."""
    try:
        command = ["git", *words]
        done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    except OSError:
        return []
    return done.stdout.splitlines(keepends=True)
