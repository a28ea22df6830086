"""Charts on a page: the Vega-Lite JSON in a frame, drawn by ``charts.js``.

A chart in a notebook is a bundle of formats (see the notebook on figures). The page
keeps two of them: the JSON, which a copy of Vega on the site draws for the reader's
theme, and the picture, for paper and for a reader without scripts. A fragment with the
address of a content network, as Colab stores it, is dropped. Both become files of their
own, which the browser asks for when the reader comes near the chart.
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
CONTROL_HEIGHT = 32  # of a slider or a list, as in `custom.css`
FOLDER = "_static/charts"
DATA = re.compile(
    r'data-chart="(\w+)"(?P<frame>[^>]*>)<script type="application/json">(?P<json>.*?)'
    r'</script>(?P<view><div class="annotated-chart-view"></div>)'
    r'(?:<noscript><img alt="[^"]*" src="data:image/png;base64,(?P<png>[^"]*)">'
    r"</noscript>)?"
)


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
    controls = [param for param in spec.get("params", []) if has_control(param)]
    picture, height = "", 0
    if png:
        code = "".join(png).replace("\n", "")
        height = png_size(base64.b64decode(code))[1] // 2
        height += CONTROL_HEIGHT * len(controls)
        alt = html.escape(name)
        picture = (
            f'<noscript><img alt="{alt}" src="data:image/png;base64,{code}"></noscript>'
        )
    safe = text.replace("</", "<\\/")
    return (
        f'<div {MARK} data-chart="{digest}" role="figure" tabindex="0" '
        f'aria-label="{html.escape(name)}" style="--height:{height}px">'
        f'<script type="application/json">{safe}</script>'
        f'<div class="annotated-chart-view"></div>{picture}</div>'
    )


def has_control(param: dict[str, Any]) -> bool:
    """Tell whether a control stands below the chart: a slider, or a list."""
    bound = param.get("bind", {})
    return bound == "legend" or "input" in bound


def png_size(data: bytes) -> tuple[int, int]:
    """Read a PNG's width and height from its header."""
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


def take_out(body: str, outdir: Path, address: str) -> str:
    """Move the charts' data and pictures from the page into files below ``outdir``.

    The data is a script and not plain JSON, because a page that is opened from a disk
    may load scripts and nothing else.
    """
    folder = outdir / FOLDER

    def move(match: re.Match[str]) -> str:
        name, picture = match[1], ""
        folder.mkdir(parents=True, exist_ok=True)
        script = f'annotatedChart("{name}", {match["json"]});\n'
        (folder / f"{name}.js").write_text(script, encoding="utf-8")
        if match["png"]:
            data = base64.b64decode(match["png"])
            (folder / f"{name}.png").write_bytes(data)
            width, height = (side // 2 for side in png_size(data))
            picture = (
                f'<img alt="" src="{address}/{name}.png" width="{width}" '
                f'height="{height}" loading="lazy">'
            )
        return f'data-chart="{name}"{match["frame"]}{match["view"]}{picture}'

    return DATA.sub(move, body)


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
