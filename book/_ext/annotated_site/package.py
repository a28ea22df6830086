"""What the package offers, read from the source of its cells and never imported.

``read`` asks tangle which cell defines each public name, and describes what stands
there: the signature as it is written, with the shapes, the docstring, the fields and
the methods. ``api`` turns these descriptions into pages.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tangle.book import read_book
from tangle.notebooks import Cell, Notebook
from tangle.package import Module, build

SHOWN = re.compile(r"__(?!init__|post_init__)\w+__|[^_].*")  # members that have a place
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
END_OF_HEAD = re.compile(r":\s*(?:#.*)?$")
FOR_TOOLS = re.compile(r"  # (?:type: ignore|noqa|fmt:).*$", re.MULTILINE)
BROKEN = re.compile(r"(?<=[(\[{])\s*\n\s*|,?\s*\n\s*(?=[)\]}])")  # inside brackets
BRIEF = 60  # letters of a value that a table shows

Table = tuple[tuple[str, ...], ...]  # its head is the first row


@dataclass(frozen=True)
class Field:
    """A field of a dataclass or named tuple, or an attribute of another class."""

    name: str
    annotation: str
    default: str
    doc: str


@dataclass(frozen=True)
class Method:
    """A method, or a property."""

    name: str
    signature: str
    doc: str


@dataclass(frozen=True)
class Entry:
    """A public name: what it is, where it is defined, and what is said about it."""

    module: str
    name: str
    kind: str
    cell: str  # "notebooks/04_transformer.ipynb#attend"
    section: str  # the heading that the cell stands under
    signature: str
    doc: str
    brief: str = ""  # a constant's value
    bases: tuple[str, ...] = ()  # classes of the package, by their full names
    fields: tuple[Field, ...] = ()
    methods: tuple[Method, ...] = ()
    aliases: tuple[str, ...] = ()  # the types that its annotations use, as written
    presets: tuple[Table, ...] = ()
    parameters: frozenset[str] = frozenset()

    @property
    def full_name(self) -> str:
        """The name to import. It is also the entry's anchor, so it never changes."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Page:
    """A module of the package: its notebook, the notebook's title, its names."""

    name: str
    notebook: str
    title: str
    entries: tuple[Entry, ...]

    @property
    def docname(self) -> str:
        """The page of the site that describes the module."""
        return f"book/api/{self.name.partition('.')[2]}"


@cache
def read(root: Path) -> dict[str, Page]:
    """Describe all modules, by name, in the order of the book."""
    modules = build(read_book(root))
    return {name: page(module, modules) for name, module in modules.items()}


def page(module: Module, modules: Mapping[str, Module]) -> Page:
    """Describe a module."""
    sections = headings(module.notebook)
    entries = tuple(
        describe(Place(name, cell, module, modules), sections[cell.id])
        for cell, body in module.cells
        for statement in body
        for name in defined(statement)
        if is_public(name, cell)
    )
    return Page(module.name, module.notebook.path, module.notebook.title, entries)


def is_public(name: str, cell: Cell) -> bool:
    """Tell whether the module's ``__all__`` has a name of this cell."""
    return not cell.private and not name.startswith("_")


def headings(notebook: Notebook) -> dict[str, str]:
    """Say under which heading each cell stands, by the cell's id."""
    found, heading = {}, notebook.title
    for cell in notebook.cells:
        for line in cell.source.split("\n") if cell.kind == "markdown" else []:
            if match := re.match(r"#{2,4} (.+)", line):
                heading = re.sub(r"[*`$]", "", match[1]).strip()
        found[cell.id] = heading
    return found


# From a name to its statement -----------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A name in its module, from where other names can be looked up."""

    name: str
    cell: Cell
    module: Module
    modules: Mapping[str, Module]

    @property
    def node(self) -> ast.stmt:
        """The statement that defines the name."""
        body = next(body for cell, body in self.module.cells if cell is self.cell)
        return next(node for node in body if self.name in defined(node))

    def find(self, name: str) -> Place | None:
        """Find what a name means in this module, if the package defines it."""
        owner, inner = self.module, name
        if name in owner.origins:
            module, _, inner = owner.origins[name].rpartition(".")
            if module not in self.modules:
                return None
            owner = self.modules[module]
        if inner not in owner.names:
            return None
        return Place(inner, owner.names[inner][0], owner, self.modules)


def defined(node: ast.stmt) -> list[str]:
    r"""Name what a statement defines, in order; an import defines nothing.

    >>> defined(ast.parse("HE, SHE = 'il', 'elle'").body[0])
    ['HE', 'SHE']
    """
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign(targets=targets):
            inner = (each for target in targets for each in ast.walk(target))
            return [each.id for each in inner if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def describe(place: Place, section: str) -> Entry:
    """Describe one public name."""
    node, source = place.node, place.cell.source
    match node:
        case ast.ClassDef():
            text, doc = class_head(node, source), docstring(node)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            text, doc = head(node, source), docstring(node)
        case _:
            text, doc = (
                ast.get_source_segment(source, node) or "",
                comment(node, source),
            )
    return Entry(
        module=place.module.name,
        name=place.name,
        kind=kind(place.name, node),
        cell=place.cell.address,
        section=section,
        signature=text,
        doc=doc,
        brief=brief(node, source),
        bases=tuple(base_classes(place)),
        fields=tuple(fields(node, source)),
        methods=tuple(methods(node, source)),
        aliases=tuple(aliases(place)),
        presets=tuple(presets(place)),
        parameters=frozenset(a.arg for a in ast.walk(node) if isinstance(a, ast.arg)),
    )


def kind(name: str, node: ast.stmt) -> str:
    """Say what a statement defines, in a word or two."""
    marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "context manager" if "contextmanager" in marks else "function"
    if not isinstance(node, ast.ClassDef):
        return "constant" if CONSTANT.fullmatch(name) else "type"
    bases = [ast.unparse(base) for base in node.bases]
    for base, word in (("NamedTuple", "named tuple"), ("Protocol", "protocol")):
        if base in bases:
            return word
    if any(mark.startswith("dataclass") for mark in marks):
        return "dataclass"
    return "exception" if name.endswith("Error") else "class"


# What stands there ----------------------------------------------------------------


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def head(node: Definition, source: str) -> str:
    """Copy what stands before the body, decorators too, without the last colon."""
    lines, first = source.split("\n"), node.body[0]
    start = min(part.lineno for part in [node, *decorators(node)])
    below = min([first, *decorators(first)], key=lambda part: part.lineno)
    last = lines[below.lineno - 1].encode()[: below.col_offset].decode()
    text = textwrap.dedent("\n".join([*lines[start - 1 : below.lineno - 1], last]))
    return FOR_TOOLS.sub("", END_OF_HEAD.sub("", text.rstrip("@ \n")))


def decorators(node: ast.stmt) -> list[ast.expr]:
    """List the decorators of a statement that may have some."""
    found: list[ast.expr] = getattr(node, "decorator_list", [])
    return found


def class_head(node: ast.ClassDef, source: str) -> str:
    """Copy the first lines of a class, and how it is made."""
    made = [n for n in node.body if getattr(n, "name", "") == "__init__"]
    heads = [head(n, source) for n in made if isinstance(n, ast.FunctionDef)]
    return "\n".join([head(node, source), *(textwrap.indent(h, "    ") for h in heads)])


def docstring(node: Definition) -> str:
    """Give a docstring, "" where there is none."""
    return ast.get_docstring(node) or ""


def comment(node: ast.stmt, source: str) -> str:
    """Give the comment behind a statement, with a capital."""
    line = source.split("\n")[(node.end_lineno or node.lineno) - 1]
    text = line.encode()[node.end_col_offset :].decode().partition("# ")[2].strip()
    return text[:1].upper() + text[1:]


def brief(node: ast.stmt, source: str) -> str:
    """Give a value on one line, cut where it would fill a table."""
    text = written(getattr(node, "value", None), source)
    return text if len(text) <= BRIEF else text[: BRIEF - 2].rstrip() + " …"


def fields(node: ast.stmt, source: str) -> Iterator[Field]:
    """Give what a class lists: fields with defaults, and what is said about each."""
    body: list[ast.stmt] = node.body if isinstance(node, ast.ClassDef) else []
    for number, each in enumerate(body, 1):
        if not isinstance(each, ast.Assign | ast.AnnAssign):
            continue
        said = comment(each, source)
        match body[number : number + 1]:
            case [ast.Expr(value=ast.Constant(value=str(text)))]:
                said = " ".join(text.split())
        names, values = defined(each), [each.value]
        if len(names) > 1:  # together, turn = True, 0
            values = getattr(each.value, "elts", [None] * len(names))
        shape = written(getattr(each, "annotation", None), source)
        for name, value in zip(names, values, strict=True):
            if SHOWN.fullmatch(name):
                yield Field(name, shape, written(value, source), said)


def written(node: ast.expr | None, source: str) -> str:
    """Copy an expression, on one line."""
    text = ast.get_source_segment(source, node) if node else None
    return " ".join(BROKEN.sub("", text or "").split())


def methods(node: ast.stmt, source: str) -> Iterator[Method]:
    """Give the methods of a class that others may call."""
    for each in node.body if isinstance(node, ast.ClassDef) else []:
        function = isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        if function and SHOWN.fullmatch(each.name):
            yield Method(each.name, head(each, source), docstring(each))


# What it leans on -----------------------------------------------------------------


def base_classes(place: Place) -> Iterator[str]:
    """Name the bases of a class that are the package's own and have a place."""
    for base in getattr(place.node, "bases", []):
        found = place.find(base.id) if isinstance(base, ast.Name) else None
        if found and is_public(found.name, found.cell):
            yield f"{found.module.name}.{found.name}"


def aliases(place: Place) -> list[str]:
    """Write out the types that stand in annotations under a name of ours."""
    found: dict[str, str] = {}
    pending = [(place, name) for name in annotation_names(place.node)]
    for inside, name in pending:  # grows: an alias may use another
        there = inside.find(name)
        if there is None or name in found or there.name == place.name:
            continue
        node = there.node
        if isinstance(node, ast.Assign) and kind(there.name, node) == "type":
            text = written(node.value, there.cell.source)
            found[name] = f"{name} = {text}"
            pending += [(there, inner) for inner in names_in(node.value)]
    return list(found.values())


def annotation_names(node: ast.stmt) -> Iterator[str]:
    """List the names in the annotations of what is shown, in order."""
    match node:
        case ast.ClassDef(body=body):
            for inner in body:
                name = getattr(inner, "name", "")
                if not name or name == "__init__" or SHOWN.fullmatch(name):
                    yield from annotation_names(inner)
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            for each in ast.walk(args):
                if isinstance(each, ast.arg) and each.annotation:
                    yield from names_in(each.annotation)
            if node.returns:
                yield from names_in(node.returns)
        case ast.AnnAssign(annotation=annotation):
            yield from names_in(annotation)
        case ast.Assign(value=value):
            yield from names_in(value)


def names_in(node: ast.AST) -> Iterator[str]:
    """List the names in an expression, in order."""
    if isinstance(node, ast.Name):
        yield node.id
    for inner in ast.iter_child_nodes(node):
        yield from names_in(inner)


# Presets --------------------------------------------------------------------------


def presets(place: Place) -> Iterator[Table]:
    """Make a table of each kind of configuration that a dict of presets holds."""
    node = place.node
    rows: dict[str, list[tuple[str, ast.Call]]] = {}
    for name, call in configurations(getattr(node, "value", None)):
        rows.setdefault(ast.unparse(call.func), []).append((name, call))
    for title, calls in rows.items():
        there = place.find(title)
        if there is None or not isinstance(there.node, ast.ClassDef):
            return
        known = {f.name: f.default for f in all_fields(there)}
        source = place.cell.source
        values = [(name, arguments(call, list(known), source)) for name, call in calls]
        used = [field for field in known if any(field in v for _, v in values)]
        lines = ((n, *(v.get(f, known[f]) for f in used)) for n, v in values)
        yield ((title, *used), *lines)


def configurations(node: ast.AST | None) -> Iterator[tuple[str, ast.Call]]:
    """Find the calls in a dict, in a dict of dicts, or in a union of dicts."""
    match node:
        case ast.BinOp(left=left, right=right):
            yield from configurations(left)
            yield from configurations(right)
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if isinstance(value, ast.Call) and isinstance(key, ast.Constant):
                    yield str(key.value), value
                else:
                    yield from configurations(value)


def all_fields(place: Place) -> list[Field]:
    """List the fields of a dataclass, those of its bases first."""
    node, found = place.node, []
    for base in getattr(node, "bases", []):
        there = place.find(base.id) if isinstance(base, ast.Name) else None
        found += all_fields(there) if there else []
    return found + list(fields(node, place.cell.source))


def arguments(call: ast.Call, names: list[str], source: str) -> dict[str, str]:
    """Give what a call sets, by the name of the field."""
    values = [written(value, source) for value in call.args]
    named = {k.arg: written(k.value, source) for k in call.keywords if k.arg}
    return dict(zip(names, values, strict=False)) | named
