"""An edit made in a module, carried back into the cell that it came from.

Exact means: tangling the changed notebooks gives the edited modules again. Only what
stands below a marker can be edited; what stands above (imports, `__all__`) follows from
the cells and may be left as it was.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tangle.cells import MARKER
from tangle.files import fail, read_text
from tangle.notebooks import Notebook, edited, parse
from tangle.package import SEPARATOR, Module, build, marker, render


def segments(text: str) -> Iterator[tuple[str, int, str]]:
    """Cut a module at its markers: the marker ("" for the head), its line, the text."""
    name, start, held = "", 1, list[str]()
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith(MARKER):
            yield name, start, "".join(held)
            name, start, held = line.rstrip("\n"), number, []
        else:
            held.append(line)
    yield name, start, "".join(held)


def carry_back(
    root: Path, notebooks: Sequence[Notebook], only: Sequence[str] = ()
) -> tuple[dict[Path, str | None], list[str]]:
    """The files to write, notebooks and modules, and the addresses of changed cells."""
    changed: list[str] = []
    results: list[Notebook] = []
    contents: dict[Path, str | None] = {}
    modules = build(notebooks)
    for notebook in notebooks:
        sources: dict[str, str] = {}
        if notebook.module and (not only or notebook.path in only):
            sources = _edits(root, modules[notebook.module])
        if sources:
            changed += [f"{notebook.path}#{name}" for name in sources]
            text = edited(notebook, partial(_put, sources=sources))
            contents[root / notebook.path] = text
            notebook = parse(notebook.path, text.encode())
        results.append(notebook)
    rebuilt = build(results)
    for name, module in rebuilt.items():
        if not only or module.notebook.path in only:
            _check_exact(root, modules[name], module)
    return {**contents, **render(root, rebuilt, only)}, changed


def _edits(root: Path, module: Module) -> dict[str, str]:
    """The new source of each cell whose text in the module has changed."""
    text = read_text(root / module.path)
    if text is None:
        fail(module.path, "does not exist: run `tangle` to write it")
    found = list(segments(text))
    _check_markers(module, found)
    sources: dict[str, str] = {}
    for cell, (_, line, body) in zip(module.bodies, found[1:], strict=True):
        end = "\n" if cell is module.bodies[-1] else "\n" + SEPARATOR
        if not body.endswith(end):
            what = "two empty lines" if len(end) > 1 else "one newline"
            fail(
                f"{module.path}:{line + body.count(chr(10))}",
                f"the text of {cell.address} must end with {what}: put them back",
            )
        if body.removesuffix(end) != cell.source:
            sources[cell.id] = body.removesuffix(end)
    return sources


def _check_markers(module: Module, found: list[tuple[str, int, str]]) -> None:
    expected = ["", *map(marker, module.bodies)]
    for number, (name, line, _) in enumerate(found):
        if number >= len(expected) or name != expected[number]:
            wanted = expected[number] if number < len(expected) else "no marker"
            fail(
                f"{module.path}:{line}",
                f"found the marker `{name}` where `{wanted}` belongs: markers change "
                "in the notebook alone; put it back first",
            )
    if len(found) < len(expected):
        fail(
            f"{module.path}:{found[-1][1]}",
            f"the marker `{expected[len(found)]}` is missing: cells are deleted in the "
            "notebook; put it back first",
        )


def _put(data: dict[str, Any], sources: dict[str, str]) -> None:
    """Give cells their new source; outputs that an older source printed go."""
    for cell in data["cells"]:
        if cell["id"] in sources:
            cell["source"] = sources[cell["id"]]
            cell["outputs"], cell["execution_count"] = [], None


def _check_exact(root: Path, old: Module, new: Module) -> None:
    """Tangling the new cells gives the edited module, its head perhaps renewed."""
    text = read_text(root / new.path) or ""
    head = next(segments(text))[2]
    heads = [old.head + SEPARATOR, new.head + SEPARATOR]
    if not new.bodies:
        heads = [old.head, new.head]
    if head not in heads:
        pairs = zip(head.split("\n"), heads[1].split("\n"), strict=False)
        line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), 1)
        fail(
            f"{new.path}:{line}",
            "what stands above the first marker follows from the notebook: undo this "
            f"edit and make it in {new.notebook.path} (imports: in its import cells)",
        )
    if text.removeprefix(head) != new.render().removeprefix(heads[1]):
        kept = {cell.address for cell in new.bodies}
        lost = next((c.address for c in old.bodies if c.address not in kept), "")
        what = "only imports are left below this marker, and imports belong above"
        fail(f"{new.path}: {lost}", f"{what}: make this edit in the notebook")
