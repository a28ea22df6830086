"""Pages for an e-reader, which runs no scripts: MathML, and charts as pictures.

``scripts/epub.py`` builds with these.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from . import charts

FRAME = re.compile(
    r'<div class="annotated-chart" data-chart="(\w+)"[^>]*aria-label="([^"]*)"[^>]*>'
    r'<script type="application/json">.*?</script><div [^>]*></div>'
    r'<noscript><img [^>]*base64,([^"]*)"></noscript></div>'
)
TAG = re.compile(r"\\tag\{([^}]*)\}")


def mathml(tex: str, *, display: bool) -> str:
    """Write a formula in the language that e-readers know.

    The number of an equation stands beside it. Two names are spelled as the converter
    knows them.
    """
    number = TAG.search(tex)
    tex = TAG.sub("", tex).replace("{aligned}", "{align*}")
    tex = tex.replace(r"\arg", r"\operatorname{arg}")
    formula = convert(tex.strip(), display="block" if display else "inline")
    if number is None:
        return str(formula)
    return f'<span class="eqno">({html.escape(number[1])})</span>{formula}'


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    translator.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula that stands by itself."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(mathml(node.astext(), display=True) + "</div>")
    raise nodes.SkipNode


def pictures(body: str, folder: Path, address: str) -> str:
    """Put each chart's picture in the place of the chart, and into ``folder``."""

    def picture(match: re.Match[str]) -> str:
        name, alt, code = match.groups()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(base64.b64decode(code))
        return f'<p><img alt="{alt}" src="{address}/{name}.png" /></p>'

    return FRAME.sub(picture, body)


def show_pictures(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Show charts as an e-reader can."""
    if app.builder.name != "epub" or doctree is None:
        return
    folder = Path(app.outdir, charts.FOLDER)
    address = context["pathto"](charts.FOLDER, 1)

    context["body"] = pictures(context["body"], folder, address)


def setup(app: Sphinx) -> None:
    """Register the renderer and the handler."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_display, None))
    app.connect("html-page-context", show_pictures)
