"""What a committed notebook promises before anything is run."""

import re
from pathlib import Path

import nbformat

SILENT = {"nbval-ignore-output", "nbval-skip"}
MACHINE_PATH = re.compile(
    r"(?:/root|/home|/Users|/tmp|/work|/content|site-packages)/\w"
)


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """Return the cell's tags."""
    return set(cell.metadata.get("tags", []))


def test_is_committed_executed(cells: list[nbformat.NotebookNode]) -> None:
    """Counts run 1, 2, 3 …: the outputs come from one run from top to bottom."""
    counts = {cell.id: cell.execution_count for cell in cells}
    wanted = {cell.id: number for number, cell in enumerate(cells, start=1)}
    assert counts == wanted, "execute it: make notebooks NOTEBOOKS=…"


def test_has_no_error_left_in_it(cells: list[nbformat.NotebookNode]) -> None:
    """A traceback is there on purpose or not at all."""
    broken = [
        cell.id
        for cell in cells
        if "raises-exception" not in tags(cell)
        and any(output.output_type == "error" for output in cell.outputs)
    ]
    assert not broken


def test_gives_a_reason_for_each_output_that_is_not_compared(
    cells: list[nbformat.NotebookNode],
) -> None:
    """The reason is a sentence in the cell's metadata, under annotated.reason."""
    silent = [
        cell.id
        for cell in cells
        if tags(cell) & SILENT
        and not cell.metadata.get("annotated", {}).get("reason", "").strip()
    ]
    assert not silent, f"{silent}: say why in metadata: annotated.reason"


def test_executes_each_exported_cell(cells: list[nbformat.NotebookNode]) -> None:
    """Code of the package is never skipped."""
    skipped = [
        cell.id
        for cell in cells
        if "nbval-skip" in tags(cell) and tags(cell) & {"export", "export-private"}
    ]
    assert not skipped


def test_shows_no_path_of_the_machine_that_ran_it(
    notebook: Path, cells: list[nbformat.NotebookNode]
) -> None:
    """Outputs speak of files as a reader has them."""
    seen = [
        f"{cell.id}: {match.group()}"
        for cell in cells
        for output in cell.outputs
        for match in MACHINE_PATH.finditer(readable(output))
    ]
    assert not seen, notebook.name


def readable(output: nbformat.NotebookNode) -> str:
    """Return the text of an output, without pictures and drawings."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return str(output.evalue)
    return "".join(
        str(data)
        for kind, data in output.get("data", {}).items()
        if kind == "text/plain"
    )


def test_has_no_control_characters(notebook: Path) -> None:
    """An escape in a script has made one letter of a backslash and the letter after."""
    book = nbformat.read(notebook, as_version=4)
    odd = [c.id for c in book.cells if re.search(r"[\x00-\x09\x0b-\x1f]", c.source)]
    assert not odd, "cells with control characters in their text"
