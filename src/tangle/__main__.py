"""The command `tangle`."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tangle.back import carry_back, segments
from tangle.book import find_root, read_book
from tangle.cells import MARKER
from tangle.files import TangleError, read_text, write_all
from tangle.normalise import normalise
from tangle.package import build, render
from tangle.where import where

HELP = """\
The package src/annotated is written from the cells of the notebooks, and from no
other place.

  tangle                 write the package
  tangle --check         write nothing; show how the package differs, cell by cell
  tangle --back          carry edits made below the markers of a module into the cells
  tangle where NAME      where a name is explained: annotated.word2vec.Vectors
  tangle normalise       remove what editors add to notebooks; write the setup cells
  tangle normalise --check

With notebooks as arguments (tangle notebooks/a_data.ipynb), `tangle` reads the book
up to the last of them and writes their modules alone; `normalise` treats these alone.

How a cell becomes a line of the package:

  1. The notebook names its module in its metadata: {"annotated": {"module":
     "annotated.data"}}. It is listed in _toc.yml, and imports only from notebooks
     above it.
  2. The cell has the tag `export`, or `export-private` to stay out of __all__.
  3. It defines and does not do: imports (in cells of their own), def, class, constants.
  4. Each name that it uses is exported, imported in an exported cell, or Python's own.

The first fault found is printed as one line, and no file is changed. The exit status is
0 if all is well, 1 if --check found a difference, 2 for a fault.
"""

OUT_OF_DATE = "run `tangle`, or `tangle --back` to keep what the module says"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="tangle",
        usage="tangle [--check | --back] [--root DIR] [NOTEBOOK ...]\n"
        "       tangle where NAME\n"
        "       tangle normalise [--check] [NOTEBOOK ...]",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="compare, write nothing")
    mode.add_argument("--back", action="store_true", help="from modules to cells")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="the folder that has _toc.yml"
    )
    options = parser.parse_intermixed_args(arguments)
    words: list[str] = options.words
    try:
        root = options.root or find_root(Path.cwd())
        if words[:1] == ["where"]:
            if len(words) != 2 or options.check or options.back:
                parser.error(
                    "where takes one name: tangle where annotated.data.Vocabulary"
                )
            print(where(root, words[1]))
            return 0
        if words[:1] == ["normalise"]:
            if options.back:
                parser.error("normalise goes one way only")
            contents = normalise(root, _paths(root, words[1:]))
            return _finish(root, contents, options.check, "run `tangle normalise`")
        only = _paths(root, words)
        notebooks = read_book(root, only)
        if options.back:
            contents, changed = carry_back(root, notebooks, only)
            write_all(contents)
            for address in changed:
                print(f"{address} changed: execute its notebook again")
            return 0
        contents = render(root, build(notebooks), only)
        return _finish(root, contents, options.check, OUT_OF_DATE)
    except (TangleError, OSError) as error:
        print(f"tangle: {error}", file=sys.stderr)
        return 2


def _paths(root: Path, words: Iterable[str]) -> list[str]:
    """Notebooks as the book names them, from paths that are typed or completed."""
    folder = root.resolve()
    paths = []
    for word in words:
        path = Path(word).resolve()
        inside = path.is_relative_to(folder) and path.exists()
        paths.append(path.relative_to(folder).as_posix() if inside else word)
    return paths


def _finish(
    root: Path, contents: Mapping[Path, str | None], check: bool, advice: str
) -> int:
    """Write the files, or say how they differ."""
    if not check:
        for path in write_all(contents):
            verb = "removed" if contents[path] is None else "wrote"
            print(f"{verb} {path.relative_to(root).as_posix()}")
        return 0
    different = [path for path, text in contents.items() if text != read_text(path)]
    for path in different:
        name = path.relative_to(root).as_posix()
        for line in _diff(name, read_text(path) or "", contents[path] or ""):
            print(line)
    if different:
        names = ", ".join(path.relative_to(root).as_posix() for path in different)
        print(f"tangle: out of date: {names}: {advice}", file=sys.stderr)
    return 1 if different else 0


def _diff(path: str, old: str, new: str) -> list[str]:
    """A unified diff for each cell, with the cell's address in its header."""
    ours = {name: (line, text) for name, line, text in segments(old)}
    theirs = {name: text for name, _, text in segments(new)}
    lines: list[str] = []
    for name in dict.fromkeys([*ours, *theirs]):
        line, text = ours.get(name, (0, ""))
        cell = name.removeprefix(MARKER) or f"{path} (above the cells)"
        lines += _unified(text, theirs.get(name, ""), f"{path}:{line}", cell)
    return lines or _unified(old, new, path, f"{path} (cells in another order)")


def _unified(old: str, new: str, name: str, new_name: str) -> list[str]:
    ours, theirs = (text.rstrip("\n").splitlines() for text in (old, new))
    return list(difflib.unified_diff(ours, theirs, name, new_name, lineterm=""))


if __name__ == "__main__":
    sys.exit(main())
