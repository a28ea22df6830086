"""Cells as places that one can point at.

A cell's id is its address: ``page.html#cell-id`` is where a marker in the package, a
traceback or a link from another page leads. Above a cell that the package holds, a
quiet line says the module and the names.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from . import charts
from .links import note_cell, to_name
from .package import defined

logger = logging.getLogger(__name__)

KEY = "annotated_notebook"
LINES_PER_CELL = 10_000  # how MyST-NB numbers lines: cell 3 begins at line 40 000

Notebook = dict[str, Any]


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Keep the notebook's cells for later, and let its charts be drawn by the page."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    app.env.temp_data[KEY] = notebook
    for cell in notebook["cells"]:
        name_what_is_hidden(cell)
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = charts.prefer_json(output["data"], cell["id"])
    source[0] = json.dumps(notebook)


def name_what_is_hidden(cell: Notebook) -> None:
    """Say on the button of a hidden input, or cell, what is behind it."""
    tags = cell["metadata"].get("tags", [])
    if not {"hide-input", "hide-cell"} & set(tags):
        return
    what = "code"
    if cell["id"] == "setup":
        what = "set-up for Colab"
    elif "solution" in cell["id"]:
        what = "solution"
    elif "check" in tags:
        what = "check"
    elif "exercise" in cell["id"]:
        what = "solution"
    prompts = cell["metadata"].setdefault("mystnb", {})
    prompts.setdefault("code_prompt_show", f"Show the {what}")
    prompts.setdefault("code_prompt_hide", f"Hide the {what}")


class Anchors(SphinxTransform):
    """Give each cell its id, and each exported cell its label."""

    default_priority = 410

    def apply(self) -> None:
        """Visit the page's cells, if the page is a notebook."""
        notebook = self.env.temp_data.get(KEY)
        if notebook is None:
            return
        module = notebook["metadata"].get("annotated", {}).get("module")
        shown = self.first_nodes()
        for index, cell in enumerate(notebook["cells"]):
            node = shown.get(index)
            if node is None or "id" not in cell:
                continue
            self.anchor(node, cell["id"])
            self.offer(cell["id"])
            if module and is_exported(cell) and node.get("nb_element") == "cell_code":
                note_cell(self.env, cell["id"])
                node.insert(0, label(module, cell))

    def first_nodes(self) -> dict[int, nodes.Element]:
        """Find what the page shows first of each cell that it shows, in one pass."""
        found: dict[int, nodes.Element] = {}
        for node in self.document.findall(nodes.Element):
            first = node.parent if isinstance(node, nodes.title) else node
            found.setdefault(node.get("cell_index", -1), first)
            found.setdefault((node.line or 0) // LINES_PER_CELL - 1, first)
        return found

    def anchor(self, node: nodes.Element, name: str) -> None:
        """Make ``#name`` lead to the node."""
        if name in node["ids"]:  # a heading whose slug is its cell's id
            return
        if name in self.document.ids:
            logger.warning(
                "cell id %r is an anchor of this page already: give the heading or "
                "the cell another name",
                name,
                location=node,
            )
            return
        if isinstance(node, nodes.section) or node.get("nb_element") == "cell_code":
            node["ids"].append(name)
        else:
            target = nodes.target("", "", ids=[name])
            node.parent.insert(node.parent.index(node), target)
        self.document.ids[name] = node

    def offer(self, name: str) -> None:
        """Let other pages link to a cell as to a heading: ``02_seq2seq.ipynb#gates``.

        MyST looks such names up in a table of the page's headings: name → line of the
        source, id on the page, title.
        """
        page = self.env.metadata[self.env.docname]
        page.setdefault("myst_slugs", {}).setdefault(name, (0, name, name))


def is_exported(cell: Notebook) -> bool:
    """Tell whether the package has this cell."""
    return any(tag.startswith("export") for tag in cell["metadata"].get("tags", []))


def names_of(cell: Notebook) -> list[str]:
    """Name what a cell defines, in order."""
    source = cell["source"]
    tree = ast.parse(source if isinstance(source, str) else "".join(source))
    return [name for statement in tree.body for name in defined(statement)]


def label(module: str, cell: Notebook) -> nodes.paragraph:
    """Write the line above an exported cell: ``annotated.word2vec · Vectors #``.

    Module and names lead to the API, the sign to the cell itself. A name that is not
    public has no entry, so it is no link.
    """
    tags, names = cell["metadata"]["tags"], names_of(cell)
    line = nodes.paragraph("", "", classes=["export-label"])
    line += [to_name(module, nodes.strong("", module)), nodes.Text(" · ")]
    for number, name in enumerate(names):
        public = "export" in tags and not name.startswith("_")
        line += nodes.Text(", " if number else "")
        line += (
            to_name(f"{module}.{name}", nodes.inline("", name))
            if public
            else (nodes.Text(name))
        )
    if not names:
        line += nodes.Text("imports")
    here = nodes.reference("", "#", internal=True, refid=cell["id"])
    here["reftitle"], here["classes"] = "Link to this cell", ["to-cell"]
    line += [nodes.Text(" "), here]
    return line


def setup(app: Sphinx) -> None:
    """Register the handler and the transform."""
    app.connect("source-read", read)
    app.add_transform(Anchors)
