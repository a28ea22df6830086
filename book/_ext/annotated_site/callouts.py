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
    words = spoken(first) if isinstance(first, nodes.paragraph) else []
    if not words or not isinstance(words[0], nodes.strong):
        return None
    match = OPENING.match(words[0].astext())
    return match[1].lower() if match else None


def spoken(paragraph: nodes.paragraph) -> list[nodes.Node]:
    """List a paragraph's words without the empty ones that Markdown begins with."""
    return [word for word in paragraph.children if word.astext()]


def callout(quote: nodes.block_quote, kind: str) -> nodes.admonition:
    """Build the admonition: the bold words are its title, the rest its body."""
    paragraph, *rest = quote.children
    strong, *words = spoken(paragraph)
    title = nodes.title("", strong.astext().rstrip(" .:"))
    if words and isinstance(words[0], nodes.Text):
        words[0] = nodes.Text(words[0].astext().lstrip(" .:\n"))
    body = [nodes.paragraph("", "", *words)] if words else []
    box = nodes.admonition("", title, *body, *rest, classes=["callout", kind])
    box.source, box.line = quote.source, quote.line
    return box


def setup(app: Sphinx) -> None:
    """Register the transform."""
    app.add_transform(Callouts)
