"""Charts on a page: the Vega-Lite JSON in a frame, drawn by ``charts.js``.

A chart in a notebook is a bundle of formats (see the notebook on figures). The page
keeps two of them: the JSON, which a copy of Vega on the site draws for the reader's
theme, and the picture, for a reader without scripts. The format with the address of a
content network is dropped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import struct
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

VEGA_LITE = re.compile(r"application/vnd\.vegalite\.v\d+\+json")
MARK = 'class="annotated-chart"'
CONTROL_HEIGHT = 32  # of a slider, as in `custom.css`


def prefer_json(data: dict[str, Any], place: str) -> dict[str, Any]:
    """Turn an output that has a chart's JSON into the chart's frame; leave others."""
    kind = next(filter(VEGA_LITE.fullmatch, data), None)
    if kind is None:
        return data
    return {"text/html": frame(data[kind], data.get("image/png"), place)}


def frame(spec: dict[str, Any], png: str | list[str] | None, place: str) -> str:
    """Write the frame of one chart.

    It is a figure with a name, reachable by keyboard because it may scroll, and as high
    as the chart will be, so that the text below does not jump.
    """
    name = spec.get("description")
    if not name:
        raise ExtensionError(
            f"{place}: a chart without a description says nothing to a reader who "
            "cannot see it; add .properties(description=…)"
        )
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    controls = [p for p in spec.get("params", []) if "input" in p.get("bind", {})]
    picture, height = "", 0
    if png:
        code = "".join(png).replace("\n", "")
        height = png_height(base64.b64decode(code)) // 2
        height += CONTROL_HEIGHT * len(controls)
        alt = html.escape(name)
        picture = (
            f'<noscript><img alt="{alt}" src="data:image/png;base64,{code}"></noscript>'
        )
    safe = text.replace("</", "<\\/")
    return (
        f'<div {MARK} data-chart="{digest}" role="figure" tabindex="0" '
        f'aria-label="{html.escape(name)}" style="min-height:{height}px">'
        f'<script type="application/json">{safe}</script>'
        f'<div class="annotated-chart-view"></div>{picture}</div>'
    )


def png_height(data: bytes) -> int:
    """Read a PNG's height from its header."""
    (height,) = struct.unpack(">I", data[20:24])
    return int(height)


class Chart(SphinxDirective):
    """Show a chart on a page without code.

    The argument is a Vega-Lite file beside the page, or a cell of a notebook, such as
    ``../notebooks/01_word2vec.ipynb#map``: then it is the chart that the cell has
    drawn, and there is no second copy that could go stale.
    """

    required_arguments = 1
    option_spec: ClassVar = {"alt": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Find the chart, or say what is missing."""
        name, _, cell_id = self.arguments[0].partition("#")
        relative, path = self.env.relfn2path(name)
        self.env.note_dependency(relative)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise self.error(f"{name}: no chart can be read: {problem}") from problem
        if cell_id:
            output = stored_chart(content, cell_id)
        else:
            output = drawn_chart(content, self.options.get("alt"))
        if output is None:
            raise self.error(f"{self.arguments[0]}: that cell has no chart; run it")
        shown = prefer_json(output, self.arguments[0])
        return [nodes.raw("", shown["text/html"], format="html")]


def stored_chart(notebook: dict[str, Any], cell_id: str) -> dict[str, Any] | None:
    """Find the output of a notebook's cell that is a chart."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []) if cell.get("id") == cell_id else []:
            data: dict[str, Any] = output.get("data", {})
            if any(map(VEGA_LITE.fullmatch, data)):
                return data
    return None


def drawn_chart(spec: dict[str, Any], alt: str | None) -> dict[str, Any]:
    """Give a bare chart the book's colours, its description and its picture."""
    from annotated.figures import bundle, chart_config  # slow: it needs PyTorch

    spec = {"config": chart_config("light")} | spec
    if alt:
        spec["description"] = alt
    return bundle(spec)


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("annotated-chart", Chart)
