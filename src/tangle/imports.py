"""The imports of all exported cells of a notebook: one block, sorted as isort does."""

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tangle.files import fail
from tangle.notebooks import Cell

OURS = ("annotated", "tangle")
WIDTH = 88


@dataclass(frozen=True)
class Import:
    """`import module [as alias]`, or `from module import name [as alias]`."""

    module: str
    name: str | None
    alias: str | None

    @property
    def binds(self) -> str:
        return self.alias or self.name or self.module.partition(".")[0]

    @property
    def gives(self) -> str:
        """What the bound name stands for: `import torch.nn` still gives `torch`."""
        if self.name is None:
            return self.module if self.alias else self.binds
        return f"{self.module}.{self.name}"


def imports_of(cell: Cell, node: ast.Import | ast.ImportFrom) -> list[Import]:
    """The imports of one statement. They are absolute and name what they bring."""
    if isinstance(node, ast.Import):
        return [Import(alias.name, None, alias.asname) for alias in node.names]
    if node.level or node.module is None:
        fail(
            cell.at(node.lineno),
            "relative import: write it from the top, `annotated.…`",
        )
    if node.names[0].name == "*":
        fail(cell.at(node.lineno), "`import *` hides what it brings: name each import")
    return [Import(node.module, alias.name, alias.asname) for alias in node.names]


def render_imports(imports: Iterable[Import]) -> str:
    """The import block: sections, in each first `import`, then `from`, all sorted."""
    sections: dict[int, list[Import]] = {}
    for item in sorted(set(imports), key=lambda i: (i.module, i.name or "", i.binds)):
        sections.setdefault(_section(item.module), []).append(item)
    return "\n\n".join("\n".join(_section_lines(sections[s])) for s in sorted(sections))


def _section(module: str) -> int:
    top = module.partition(".")[0]
    if top == "__future__":
        return 0
    if top in sys.stdlib_module_names:
        return 1
    return 3 if top in OURS else 2


def _section_lines(items: list[Import]) -> list[str]:
    whole = [item for item in items if item.name is None]
    whole.sort(key=lambda item: (_module_key(item.module), item.alias or ""))
    groups: dict[tuple[str, str | None, str | None], list[Import]] = {}
    for item in items:
        if item.name is not None:
            own_line = item.name if item.alias else None
            groups.setdefault((item.module, own_line, item.alias), []).append(item)
    for group in groups.values():
        group.sort(key=lambda item: name_key(item.name or ""))
    parts = sorted(
        groups.values(),
        key=lambda g: (
            _module_key(g[0].module),
            name_key(g[0].name or ""),
            g[0].alias or "",
        ),
    )
    return [*map(_spell, whole), *(_from_line(group) for group in parts)]


def _spell(item: Import) -> str:
    return f"import {item.module}" + (f" as {item.alias}" if item.alias else "")


def _from_line(group: list[Import]) -> str:
    names = [f"{i.name} as {i.alias}" if i.alias else str(i.name) for i in group]
    line = f"from {group[0].module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join(
        [f"from {group[0].module} import (", *(f"    {n}," for n in names), ")"]
    )


def _module_key(name: str) -> tuple[object, ...]:
    return (_natural(name.lower()), _natural(name))


def name_key(name: str) -> tuple[object, ...]:
    """The order of names in an import: CONSTANTS, then Classes, then the rest."""
    return (_kind(name), _module_key(name))


def all_key(name: str) -> tuple[object, ...]:
    """The order of names in `__all__`, where capitals come before small letters."""
    return (_kind(name), _natural(name))


def _kind(name: str) -> int:
    return 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2


def _natural(name: str) -> list[int | str]:
    """A key that sorts `bleu2` before `bleu10`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts]
