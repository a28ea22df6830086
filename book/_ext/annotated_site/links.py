"""Links between a cell and the names that it gives to the package.

Both are references that Sphinx resolves at the end, when all pages are read, so a link
that leads nowhere fails the build.
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.environment import BuildEnvironment


def to_name(full_name: str, text: nodes.Element) -> addnodes.pending_xref:
    """Link to what the API says of a name, ``annotated.transformer.attend``."""
    return addnodes.pending_xref(
        "", text, refdomain="py", reftype="obj", reftarget=full_name, refexplicit=True
    )


def to_cell(address: str, text: str) -> addnodes.pending_xref:
    """Link to a cell, ``notebooks/04_transformer.ipynb#attend``."""
    words = nodes.inline("", text)
    return addnodes.pending_xref(
        "", words, refdomain="std", reftype="ref", reftarget=address, refexplicit=True
    )


def note_cell(env: BuildEnvironment, cell_id: str) -> None:
    """Let ``to_cell`` find a cell of the page that is being read."""
    places = env.get_domain("std").anonlabels  # type: ignore[attr-defined]
    places[f"{env.docname}.ipynb#{cell_id}"] = env.docname, cell_id


def to_page(docname: str, text: str) -> addnodes.pending_xref:
    """Link to a page of the book."""
    words = nodes.inline("", text)
    return addnodes.pending_xref(
        "", words, refdomain="std", reftype="doc", reftarget=f"/{docname}",
        refexplicit=True,
    )  # fmt: skip
