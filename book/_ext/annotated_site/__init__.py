"""The book's own Sphinx extension.

It does what the theme and MyST-NB leave open:

- ``notebooks``: cells become anchors, exported cells say where the package has them;
- ``api``: the pages of the API, from what ``package`` reads in the cells, with
  ``links`` from a name to its cell and back;
- ``charts``: Altair's charts are drawn from their JSON by a copy of Vega on the site;
- ``reading``: minutes and difficulty of each section, counted and shown;
- ``callouts``: quotes that open with **Note**, **Pitfall** or **Exercise** stand out;
- ``assets``: the scripts that a page needs, and none that comes from elsewhere;
- ``lean``: no style, icon or picture is loaded that the page does not show;
- ``world``: the site's address, cards for links to it, its map, its missing page;
- ``ebook``: what an e-reader, which runs no scripts, sees of charts and formulas.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from . import (
    api,
    assets,
    callouts,
    charts,
    ebook,
    lean,
    notebooks,
    reading,
    world,
)

HERE = Path(__file__).parent


def _version() -> int:
    """Change with the source, so that Sphinx reads all pages anew after an edit."""
    sources = sorted(HERE.glob("*.py"))
    return zlib.crc32(b"".join(source.read_bytes() for source in sources))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the parts with Sphinx."""
    parts = (notebooks, api, charts, callouts, reading, assets, lean, world, ebook)
    for part in parts:
        part.setup(app)
    return {
        "version": "1",
        "env_version": _version(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
