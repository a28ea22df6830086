"""Pages for an e-reader, which runs no scripts: MathML, and charts as pictures.

``scripts/epub.py`` builds with these. What Sphinx's own builder of EPUBs leaves wrong
in this book, `Book` puts right: epubcheck finds no error in what comes out.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.builders.epub3 import Epub3Builder
from sphinx.writers.html5 import HTML5Translator

from . import charts

FRAME = re.compile(
    r'<div class="annotated-chart" data-chart="(\w+)"[^>]*aria-label="([^"]*)"[^>]*>'
    r'<script type="application/json">.*?</script><div [^>]*></div>'
    r'<noscript><img [^>]*base64,([^"]*)"></noscript></div>'
)
# The site's style sheet shows one of the two lines, or the other.
SUMMARY = re.compile(
    r'<summary aria-label="[^"]*">\s*<p class="collapsed[^>]*>(.*?)</p>\s*'
    r'<p class="expanded[^>]*>.*?</p>\s*</summary>',
    re.DOTALL,
)
ITEM = re.compile(r'(<item id="epub-[0-9]+" href="([^"]*\.xhtml)"[^>]*?) ?/>')
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
    if app.builder.name != "epub":
        return
    # MyST-NB's sheet is written after the book is bound.
    sheets = context["css_files"]
    context["css_files"] = [s for s in sheets if "mystnb." not in str(s.filename)]
    if doctree is None:  # the index
        return
    folder = Path(app.outdir, charts.FOLDER)
    address = context["pathto"](charts.FOLDER, 1)

    body = pictures(context["body"], folder, address)
    context["body"] = SUMMARY.sub(r"<summary>\1</summary>", body)


def declared(package: str, folder: Path) -> str:
    """Say of each page in the package's list whether it has MathML or SVG inside."""

    def declare(match: re.Match[str]) -> str:
        item, name = match.groups()
        page = (folder / name).read_text(encoding="utf-8")
        has = [kind for kind in ("math", "svg") if f"<{kind} " in page]
        if not has:
            return match[0]
        kinds = " ".join(has).replace("math", "mathml")
        return f'{item} properties="{kinds}" />'

    return ITEM.sub(declare, package)


class Book(Epub3Builder):
    """Sphinx's builder for a book whose first page is in a folder."""

    def get_toc(self) -> None:
        """List all pages, each by its address from the top of the file.

        Sphinx writes ``book/../notebooks/…``, finds no such page, and leaves it out of
        the reading order.
        """
        super().get_toc()
        for entry in self.refnodes:
            entry["refuri"] = normpath(entry["refuri"])

    def toc_metadata(self, level: int, navpoints: list[Any]) -> dict[str, Any]:
        """Give the older table of contents the name that the package has."""
        named = {"uid": html.escape(self.config.epub_identifier)}
        return super().toc_metadata(level, navpoints) | named

    def build_content(self) -> None:
        """Write the package's list with what an e-reader has to prepare for."""
        super().build_content()
        file = Path(self.outdir, "content.opf")
        package = file.read_text(encoding="utf-8")
        file.write_text(declared(package, Path(self.outdir)), encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Register the builder, the renderer and the handler."""
    app.add_builder(Book, override=True)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_display, None))
    app.connect("html-page-context", show_pictures)
