"""A chart on a page without code, from a Vega-Lite file.

    ```{annotated-chart} charts/shares.vl.json
    :alt: What the chart shows, for a reader who cannot see it.
    ```

The path is relative to the page. The chart is framed and drawn exactly as the charts of
the notebooks are.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import vl_convert
from annotated_site import charts
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class AnnotatedChart(SphinxDirective):
    """Show the chart of one Vega-Lite file."""

    required_arguments = 1
    option_spec = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Read the file and frame its chart."""
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        if "alt" not in self.options:
            raise self.error(f"{name}: say in :alt: what the chart shows")
        try:
            spec = json.loads(Path(path).read_text(encoding="utf-8"))
            png = vl_convert.vegalite_to_png(spec, scale=2)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise self.error(f"{name} is no Vega-Lite chart: {reason}") from None
        spec["description"] = self.options["alt"]
        picture = base64.b64encode(png).decode()
        return [nodes.raw("", charts.frame(spec, picture, name), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("annotated-chart", AnnotatedChart)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
