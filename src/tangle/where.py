"""From a name of the package to the paragraph that explains it."""

import ast
from pathlib import Path

from tangle.book import read_book
from tangle.files import fail
from tangle.package import Module, build, close_match, marker


def where(root: Path, name: str) -> str:
    """The cell, the line and the page of a name such as `annotated.x.Class.method`."""
    modules = build(read_book(root))
    module = modules.get(".".join(name.split(".")[:2]))
    if module is None:
        fail(name, f"no notebook writes this module{close_match(name, modules)}")
    inner = name.split(".")[2:]
    page = module.notebook.path.removesuffix(".ipynb") + ".html"
    if not inner:
        return f"{module.notebook.path}\n{module.path}:1\n{page}"
    if inner[0] not in module.names:
        fail(
            name,
            f"{module.name} defines no {inner[0]}{close_match(inner[0], module.names)}",
        )
    cell, line = module.names[inner[0]]
    if inner[1:]:
        line = _member(module, inner)
    start = module.render().split("\n").index(marker(cell)) + 1
    return f"{cell.address}\n{module.path}:{start + line}\n{page}#{cell.id}"


def _member(module: Module, names: list[str]) -> int:
    """The line, in its cell, of something defined inside a class."""
    owner = module.names[names[0]][0]
    body = next(body for cell, body in module.cells if cell is owner)
    line = 1
    for name in names:
        found = [node for node in body if getattr(node, "name", None) == name]
        if not found:
            fail(".".join([module.name, *names]), f"no {name} is defined there")
        line = found[0].lineno
        body = found[0].body if isinstance(found[0], ast.ClassDef) else []
    return line
