"""Quotes that open with a bold Note, Pitfall or Exercise become admonitions.

In a notebook such a quote reads well everywhere (Colab, JupyterLab, GitHub); on the
site it gets a frame, a colour and a title.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

OPENING = re.compile(r"(Note|Pitfall|Exercise)\b")


class Callouts(SphinxTransform):
    """``> **Pitfall 27** The noise …`` → an admonition titled *Pitfall 27*."""

    default_priority = 400

    def apply(self) -> None:
        """Replace each such quote of the page."""
        for quote in list(self.document.findall(nodes.block_quote)):
            kind = opening(quote)
            if kind is not None:
                quote.replace_self(callout(quote, kind))


def opening(quote: nodes.block_quote) -> str | None:
    """Give the kind of callout that a quote opens with, or None."""
    first = quote.children[0] if quote.children else None
    if not isinstance(first, nodes.paragraph) or not first.children:
        return None
    if not isinstance(first.children[0], nodes.strong):
        return None
    match = OPENING.match(first.children[0].astext())
    return match[1].lower() if match else None


def callout(quote: nodes.block_quote, kind: str) -> nodes.admonition:
    """Build the admonition: the bold words are its title, the rest its body."""
    paragraph, *rest = quote.children
    strong, *words = paragraph.children
    title = nodes.title("", "", *strong.children)
    if isinstance(title.children[-1], nodes.Text):
        text = title.children[-1].astext().rstrip(" .:")
        title.replace(title.children[-1], nodes.Text(text))
    if words and isinstance(words[0], nodes.Text):
        words[0] = nodes.Text(words[0].astext().lstrip(" .:\n"))
    body = [nodes.paragraph("", "", *words)] if any(w.astext() for w in words) else []
    box = nodes.admonition("", title, *body, *rest, classes=["callout", kind])
    box.source, box.line = quote.source, quote.line
    return box


def setup(app: Sphinx) -> None:
    """Register the transform."""
    app.add_transform(Callouts)
