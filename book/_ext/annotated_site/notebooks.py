"""Cells as places that one can point at.

A cell's id is its address: ``page.html#cell-id`` is where a marker in the package, a
traceback or a link from another page leads. Above a cell that the package holds, a
quiet line says the module and the names.
"""

from __future__ import annotations

import ast
import html
import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from . import charts

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
        for index, cell in enumerate(notebook["cells"]):
            node = self.first_node(index)
            if node is None or "id" not in cell:
                continue
            self.anchor(node, cell["id"])
            self.offer(cell["id"])
            if module and is_exported(cell) and node.get("nb_element") == "cell_code":
                node.insert(0, label(module, cell))

    def first_node(self, index: int) -> nodes.Element | None:
        """Find what the page shows first of a cell, unless it shows nothing."""
        lines = range((index + 1) * LINES_PER_CELL, (index + 2) * LINES_PER_CELL)
        for node in self.document.findall(nodes.Element):
            if node.get("cell_index") == index or node.line in lines:
                return node.parent if isinstance(node, nodes.title) else node
        return None

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


def defined_names(source: str) -> list[str]:
    r"""Name what a cell defines, in order; imports do not count.

    >>> defined_names("import os\nLIMIT = 3\ndef clip(x): return min(x, LIMIT)")
    ['LIMIT', 'clip']
    """
    names: list[str] = []
    for statement in ast.parse(source).body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.append(statement.name)
            case ast.Assign():
                names += [t.id for t in statement.targets if isinstance(t, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return names


def label(module: str, cell: Notebook) -> nodes.raw:
    """Write the line above an exported cell: ``annotated.word2vec · Vectors``."""
    source = cell["source"]
    names = defined_names(source if isinstance(source, str) else "".join(source))
    words = " · ".join([f"<b>{html.escape(module)}</b>", ", ".join(names) or "imports"])
    link = f'<a href="#{html.escape(cell["id"])}">{words}</a>'
    return nodes.raw("", f'<p class="export-label">{link}</p>', format="html")


def setup(app: Sphinx) -> None:
    """Register the handler and the transform."""
    app.connect("source-read", read)
    app.add_transform(Anchors)
