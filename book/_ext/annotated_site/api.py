"""The pages of the API: each public name of the package, and what is said of it.

``module-api`` writes a module's page and ``api-index`` the list of all names. Nothing
of it is kept by hand: both come from the cells, by way of ``package``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .links import to_cell, to_name, to_page
from .package import Entry, Field, Method, Page, Table, read

CODE = re.compile(r"(``?)(.+?)\1")
COMMAND = re.compile(r"annotated [a-z]+( .*)?")
# What Sphinx calls an entry, where it is not a class; the search shows it.
OBJECTS = {
    "function": "function",
    "context manager": "function",
    "exception": "exception",
    "constant": "data",
    "type": "data",
}

Cell = Sequence[nodes.Node]


class ModuleApi(SphinxDirective):
    """Write the page of one module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """List the names in the order of the module, then describe each."""
        name, pages = self.arguments[0], read(Path(self.env.srcdir))
        if name not in pages:
            raise self.error(f"no notebook writes {name}; there are {', '.join(pages)}")
        page = pages[name]
        self.env.note_dependency(page.notebook)
        domain = self.env.get_domain("py")
        domain.note_module(name, name, page.title, "", False)  # type: ignore[attr-defined]
        for full_name, kind in objects(page):
            domain.note_object(full_name, kind, full_name)  # type: ignore[attr-defined]
        scope = {entry.name: entry.full_name for entry in page.entries}
        said = [
            nodes.Text("Explained, cell by cell, in "),
            chapter(page),
            nodes.Text("."),
        ]
        return [
            nodes.target("", "", ids=[name]),
            nodes.paragraph("", "", *said),
            names_table(page.entries),
            *(described(entry, page, scope) for entry in page.entries),
        ]


class ApiIndex(SphinxDirective):
    """List the modules, in the order of the book, and all names, by the alphabet."""

    def run(self) -> list[nodes.Node]:
        """Write the table of the modules and that of the names."""
        pages = read(Path(self.env.srcdir)).values()
        for page in pages:
            self.env.note_dependency(page.notebook)
        rows = [[[name_link(page.name, page.name)], [chapter(page)]] for page in pages]
        modules = table(["module", "explained in"], rows)
        entries = [entry for page in pages for entry in page.entries]
        entries.sort(key=lambda entry: (entry.name.lower(), entry.full_name))
        title = nodes.title("", "All names")
        names = names_table(entries, with_module=True)
        return [modules, nodes.section("", title, names, ids=["all-names"])]


def objects(page: Page) -> Iterator[tuple[str, str]]:
    """Give all that a module's page describes, and what Sphinx calls it."""
    yield page.name, "module"
    for entry in page.entries:
        yield entry.full_name, OBJECTS.get(entry.kind, "class")
        for method in entry.methods:
            yield f"{entry.full_name}.{method.name}", "method"


# An entry -------------------------------------------------------------------------


def described(entry: Entry, page: Page, scope: Mapping[str, str]) -> nodes.section:
    """Write an entry: where it is explained, its signature, all that is said of it."""
    known = {name: full for name, full in scope.items() if name not in entry.parameters}
    title = nodes.title("", "", nodes.literal("", entry.name))
    section = nodes.section("", title, ids=[entry.full_name], classes=["api-entry"])
    section += indexed(entry.name, entry.kind, entry.full_name)
    kind = nodes.inline("", entry.kind, classes=["api-kind"])
    place = to_cell(entry.cell, f"{page.title} › {entry.section}")
    said = [kind, nodes.Text(" explained in "), place]
    section += nodes.paragraph("", "", *said, classes=["api-explained"])
    section += code(entry.signature)
    if entry.aliases:
        section += nodes.paragraph("", "where", classes=["api-where"])
        section += code("\n".join(entry.aliases))
    section += list(blocks(entry.doc, known))
    for base in entry.bases:
        said = [
            nodes.Text("It also has what "),
            name_link(base, base),
            nodes.Text(" has."),
        ]
        section += nodes.paragraph("", "", *said)
    if entry.fields:
        section += fields_table(entry.fields, known)
    section += [presets_table(preset) for preset in entry.presets]
    for method in entry.methods:
        section += method_entry(method, entry.full_name, known)
    return section


def indexed(name: str, kind: str, full_name: str) -> addnodes.index:
    """Put a name into the index of the site."""
    text = f"{name} ({kind} in {full_name.rpartition('.')[0]})"
    return addnodes.index(entries=[("single", text, full_name, "", None)])


def method_entry(
    method: Method, owner: str, known: Mapping[str, str]
) -> list[nodes.Node]:
    """Write a method: its signature, and below it what is said of it."""
    full_name = f"{owner}.{method.name}"
    signature = addnodes.desc_signature("", "", code(method.signature), ids=[full_name])
    box = addnodes.desc("", signature, classes=["api-method"], domain="py")
    box["objtype"] = "method"
    silent = [] if method.doc else ["api-silent"]  # a list wants the part all the same
    box += addnodes.desc_content("", *blocks(method.doc, known), classes=silent)
    return [indexed(method.name, "method", full_name), box]


def code(text: str, language: str = "python") -> nodes.literal_block:
    """Show code."""
    return nodes.literal_block(text, text, language=language)


# A docstring ----------------------------------------------------------------------


def blocks(doc: str, known: Mapping[str, str]) -> Iterator[nodes.Node]:
    """Write a docstring: paragraphs, examples, and commands for a terminal."""
    for block in filter(None, doc.split("\n\n")):
        if block.startswith(">>>"):
            yield code(block, "pycon")
        elif COMMAND.fullmatch(block):
            yield code(block, "bash")
        else:
            yield paragraph(inline(block, known))


def inline(text: str, known: Mapping[str, str]) -> Iterator[nodes.Node]:
    """Write a paragraph's words; a name in backticks that has an entry is a link."""
    end = 0
    for match in CODE.finditer(text):
        yield nodes.Text(text[end : match.start()])
        name = match[2].removesuffix("()")
        literal = nodes.literal("", match[2])
        yield to_name(known[name], literal) if name in known else literal
        end = match.end()
    yield nodes.Text(text[end:])


def paragraph(words: Iterable[nodes.Node]) -> nodes.paragraph:
    """Make a paragraph with straight quotes: "pre" may be a string of code."""
    return nodes.paragraph("", "", *words, support_smartquotes=False)


# Tables ---------------------------------------------------------------------------


def names_table(entries: Iterable[Entry], with_module: bool = False) -> nodes.table:
    """List names with a line on each: a docstring's first, or a constant's value."""
    rows: list[list[Cell]] = []
    for entry in entries:
        first = entry.doc.partition("\n\n")[0]
        line = [*inline(first, {})] if first else [nodes.literal("", entry.brief)]
        module = [name_link(entry.module, entry.module.partition(".")[2])]
        name: list[Cell] = [[name_link(entry.full_name, entry.name)]]
        rows.append([*name, *([module] if with_module else []), line])
    head = ["name", *(["module"] if with_module else []), "what it is"]
    return table(head, rows, "api-names")


def fields_table(fields: Sequence[Field], known: Mapping[str, str]) -> nodes.table:
    """List the fields of a class, without a column that would be empty."""
    rows: list[list[Cell]] = [
        [
            [nodes.literal("", field.name)],
            [nodes.literal("", field.annotation)] if field.annotation else [],
            [nodes.literal("", field.default)] if field.default else [],
            list(inline(field.doc, known)) if field.doc else [],
        ]
        for field in fields
    ]
    heads = ["field", "type", "default", "what it is"]
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    return table([heads[n] for n in used], [[row[n] for n in used] for row in rows])


def presets_table(preset: Table) -> nodes.table:
    """Show presets by name: what each sets."""
    (title, *names), *lines = preset
    rows = [[[nodes.literal("", cell)] for cell in line] for line in lines]
    return table([f"{title}, by preset", *names], rows)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], name: str = ""
) -> nodes.table:
    """Build a table."""
    group = nodes.tgroup("", cols=len(heads))
    group += [nodes.colspec("", colwidth=1) for _ in heads]
    group += nodes.thead("", row([[nodes.Text(head)] for head in heads]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=["api-table", *filter(None, [name])])


def row(cells: Iterable[Cell]) -> nodes.row:
    """Build a row."""
    return nodes.row("", *(nodes.entry("", paragraph(cell)) for cell in cells))


def name_link(full_name: str, text: str) -> nodes.Element:
    """Link to an entry or a module."""
    return to_name(full_name, nodes.literal("", text))


def chapter(page: Page) -> nodes.Element:
    """Link to the chapter that writes a module."""
    return to_page(page.notebook.removesuffix(".ipynb"), page.title)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("module-api", ModuleApi)
    app.add_directive("api-index", ApiIndex)
