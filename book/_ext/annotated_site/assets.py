"""The scripts of a page: those it needs, all of them from the site itself."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import vl_convert
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from . import charts, lean

logger = logging.getLogger(__name__)

SCRIPT = "annotated-vega.js"
MISNAMED = '<summary aria-label="Toggle hidden content">'  # what MyST-NB writes
UNFOLD = '<summary aria-label="The pages of this part">'  # no name in the theme
SNIPPET = "window.annotatedCharts = {vegaEmbed, config: %s};"


def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in one script, with the book's two themes.

    The versions are those that the charts' pictures were drawn with. The whole is
    inside a function because its top-level names would clash with Sphinx's own.
    """
    from annotated.figures import chart_config  # slow: it needs PyTorch

    themes = {name: chart_config(name) for name in ("light", "dark")}
    version = vl_convert.get_vegalite_versions()[-1]
    bundle = vl_convert.javascript_bundle(SNIPPET % json.dumps(themes), version)
    return f"(function () {{\n{bundle}\n}})();\n"


def ingredients() -> str:
    """Digest what the script is made from: the libraries and the themes."""
    figures = importlib.util.find_spec("annotated.figures")
    if figures is None or figures.origin is None:
        raise ExtensionError(
            "annotated.figures is missing: run `tangle`, and install the package"
        )
    sources = [Path(figures.origin).read_bytes(), Path(__file__).read_bytes()]
    libraries = vl_convert.__version__.encode()
    return hashlib.sha256(b"".join([libraries, *sources])).hexdigest()


def prepare(app: Sphinx) -> None:
    """Write the script where Sphinx finds it, and offer our templates to the theme."""
    if app.builder.name != "html":
        return
    folder = Path(app.doctreedir) / "annotated_static"
    folder.mkdir(parents=True, exist_ok=True)
    target, mark = folder / SCRIPT, f"// {ingredients()}\n"
    if not target.exists() or not target.read_text(encoding="utf-8").startswith(mark):
        target.write_text(mark + vega_script(), encoding="utf-8")
    app.config.html_static_path.append(str(folder))


def add_templates(app: Sphinx, config: Any) -> None:
    """Let our templates come before the theme's."""
    config.templates_path.append(str(Path(__file__).parent / "templates"))


def finish_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Give the page what it shows, in the order in which a reader needs it."""
    if app.builder.name != "html":
        return
    contents = context.get("generate_toctree_html")
    if contents is not None:  # the theme's list of pages, as text
        context["generate_toctree_html"] = lambda *how, **options: str(
            contents(*how, **options)
        ).replace("<summary>", UNFOLD)
    body = context.get("body", "").replace(MISNAMED, "<summary>")
    pictures = {name: Path(app.srcdir, uri) for uri, name in app.builder.images.items()}
    body = lean.lazy_pictures(body, pictures)
    if charts.MARK in body:
        address = context["pathto"](charts.FOLDER, 1)
        body = charts.take_out(body, Path(app.outdir), address)
        # Before MathJax, which is large: a chart need not wait for it.
        vega = f"{SCRIPT}?v={ingredients()[:8]}"
        app.add_js_file("charts.js", 400, "defer", **{"data-vega": vega})
    scripts = context.get("script_files", [])
    if 'class="math' not in body:  # Sphinx asks for it where a page below has some
        scripts[:] = [script for script in scripts if not is_mathjax(app, script)]
    if pagename != "search":  # whose own scripts call these as soon as they are there
        scripts[:] = lean.later(scripts)
    context["body"] = body


def is_mathjax(app: Sphinx, script: Any) -> bool:
    """Tell whether a script is MathJax or sets it up."""
    setup = script.attributes.get("body", "").startswith("window.MathJax")
    return setup or script.filename == f"_static/{app.config.mathjax_path}"


class Requests(HTMLParser):
    """Collects the addresses that a browser asks for when it opens a page."""

    LOADING = {"script", "img", "iframe", "source", "video", "audio", "embed"}

    def __init__(self) -> None:
        """Start with no address."""
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag loads; a link that a reader may follow loads nothing."""
        values = dict(attrs)
        if tag in self.LOADING:
            self.addresses.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(values.get("href") or "")


def requests(page: str) -> list[str]:
    """List a page's requests that leave the site."""
    parser = Requests()
    parser.feed(page)
    return [a for a in parser.addresses if a.startswith(("http:", "https:", "//"))]


def check_pages(app: Sphinx, error: Exception | None) -> None:
    """Warn of each page that would load something from another host."""
    if error is not None or app.builder.format != "html":
        return
    for page in sorted(Path(app.outdir).rglob("*.html")):
        if "_static" in page.parts:
            continue
        for address in requests(page.read_text(encoding="utf-8")):
            name = page.relative_to(app.outdir)
            logger.warning("%s loads %s: keep a copy on the site", name, address)


def setup(app: Sphinx) -> None:
    """Register the handlers."""
    app.connect("config-inited", add_templates)
    app.connect("builder-inited", prepare)
    app.connect("html-page-context", finish_page, priority=900)  # after MathJax's own
    app.connect("build-finished", check_pages)
