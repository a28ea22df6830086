"""A notebook file, read with suspicion: whatever is wrong with it becomes one line."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nbformat
from nbformat.v4.nbjson import writes
from nbformat.v4.rwbase import rejoin_lines

from tangle.files import fail

EXPORT_TAGS = ("export", "export-private")
HUMAN_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODULE = re.compile(r"annotated\.[a-z][a-z0-9_]*")
MACHINE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")


@dataclass(frozen=True)
class Cell:
    """One cell. `notebook` is the notebook's path, so that a cell can name itself."""

    notebook: str
    id: str
    kind: str
    source: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> bool:
        return any(tag in EXPORT_TAGS for tag in self.tags)

    @property
    def private(self) -> bool:
        return "export-private" in self.tags

    @property
    def address(self) -> str:
        return f"{self.notebook}#{self.id}"

    def at(self, line: int) -> str:
        return f"{self.address}:{line}"


@dataclass(frozen=True)
class Notebook:
    """A notebook: its path below the root, the module it owns, its cells."""

    path: str
    text: str
    module: str | None
    cells: tuple[Cell, ...]

    @cached_property
    def exported(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.exported]

    @cached_property
    def title(self) -> str:
        """The first first-level heading, as plain text."""
        for cell in self.cells:
            if cell.kind == "markdown":
                for line in cell.source.split("\n"):
                    if line.startswith("# "):
                        return "".join(filter(str.isprintable, line[2:])).strip()
        return self.path


def load(path: str, raw: bytes) -> dict[str, Any]:
    """The notebook as JSON, with the shape that the rest of tangle relies on."""
    try:
        data = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        fail(path, f"is not UTF-8 text (byte {error.start}): restore it from git")
    except json.JSONDecodeError as error:
        fail(
            f"{path}:{error.lineno}",
            f"is not valid JSON ({error.msg}); is it half-written? Save it again, or "
            "restore it from git",
        )
    except (ValueError, RecursionError) as error:
        fail(path, f"cannot be read as JSON ({error}): restore it from git")

    def need(fine: bool, what: str) -> None:
        if not fine:
            fail(path, f"{what} is missing or damaged: restore the file from git")

    need(isinstance(data, dict), "the notebook")
    if data.get("nbformat") != 4:
        fail(path, "is not a notebook of format 4: open and save it in Jupyter")
    need(isinstance(data.get("metadata"), dict), "the notebook's metadata")
    need(isinstance(data.get("cells"), list), "the list of cells")
    for number, cell in enumerate(data["cells"], 1):
        what = f"cell {number}"
        need(isinstance(cell, dict), what)
        need(cell.get("cell_type") in ("code", "markdown", "raw"), f"{what}'s type")
        need(isinstance(cell.get("metadata"), dict), f"{what}'s metadata")
        source = cell.get("source")
        need(isinstance(source, str) or _are_texts(source), f"{what}'s source")
        need(_are_texts(cell["metadata"].get("tags", [])), f"{what}'s list of tags")
    return data  # type: ignore[no-any-return]


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def parse(path: str, raw: bytes) -> Notebook:
    """Read a notebook; check what holds for any notebook: cell ids and export tags."""
    data = load(path, raw)
    check_ids(path, data)
    cells = tuple(
        Cell(path, c["id"], c["cell_type"], "".join(c["source"]), _tags(c))
        for c in data["cells"]
    )
    owner = data["metadata"].get("annotated", {})
    module = owner.get("module") if isinstance(owner, dict) else owner
    if module is not None and not MODULE.fullmatch(str(module)):
        fail(
            path,
            f"metadata annotated.module is {module!r}: it must be annotated.NAME, NAME "
            "in small letters",
        )
    notebook = Notebook(path, raw.decode(), module, cells)
    for cell in cells:
        _check_tags(cell)
    if module and not notebook.exported:
        fail(
            path,
            f"owns {module} but has no exported cell: tag one `export` (did an editor "
            "drop the tags?), or remove the module from its metadata",
        )
    if notebook.exported and not module:
        fail(
            notebook.exported[0].at(1),
            "is exported, but the notebook owns no module: set "
            '"annotated": {"module": "annotated.NAME"} in its metadata',
        )
    return notebook


def _tags(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(cell["metadata"].get("tags", []))


def _check_tags(cell: Cell) -> None:
    tags = [tag for tag in cell.tags if tag.lower().startswith("export")]
    for tag in tags:
        if tag not in EXPORT_TAGS:
            fail(cell.at(1), f"unknown tag {tag!r}: use `export` or `export-private`")
    if len(tags) > 1:
        fail(cell.at(1), "has more than one export tag: keep one")
    if tags and cell.kind != "code":
        fail(cell.at(1), f"is a {cell.kind} cell: only code can be exported")


def check_ids(path: str, data: dict[str, Any]) -> None:
    """Each cell has an id of its own."""
    seen: dict[str, int] = {}
    for number, cell in enumerate(data["cells"], 1):
        name = cell.get("id")
        if not isinstance(name, str) or not name:
            opening = "".join(cell["source"]).partition("\n")[0][:40]
            fail(
                path,
                f"cell {number} ({opening!r}) has no id: name it, in words, with an "
                '"id" in its metadata, and run `tangle normalise`',
            )
        if name in seen:
            fail(
                f"{path}#{name}",
                f"cells {seen[name]} and {number} share this id: give one another",
            )
        seen[name] = number


def check_human_id(path: str, name: str) -> None:
    """An id is an anchor that people link to: words, not what an editor made up."""
    if not HUMAN_ID.fullmatch(name) or MACHINE_ID.fullmatch(name) or len(name) > 64:
        fail(
            f"{path}#{name}",
            'this id was not written by a person: set "id" in the cell\'s metadata to '
            "a few words-joined-by-hyphens, and run `tangle normalise`",
        )


def dump(path: str, data: dict[str, Any]) -> str:
    """The notebook as nbformat writes it: indent 1, sorted keys, newline at the end."""
    try:
        notebook = nbformat.from_dict(data)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
        text: str = writes(rejoin_lines(notebook)) + "\n"  # type: ignore[no-untyped-call]
        text.encode()
    except nbformat.ValidationError as error:
        reason = str(error).partition("\n")[0]
        fail(path, f"is not a valid notebook ({reason}): correct it in an editor")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        fail(path, f"is not a valid notebook ({error}): restore it from git")
    return text


def edited(notebook: Notebook, edit: Callable[[dict[str, Any]], None]) -> str:
    """The text of the notebook after `edit` has changed its JSON; all else is kept."""
    data = json.loads(notebook.text)
    if dump(notebook.path, data) != notebook.text:
        fail(notebook.path, "is not in normal form: run `tangle normalise` first")
    edit(data)
    return dump(notebook.path, data)
