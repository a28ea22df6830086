"""What the tests of the words share: the notebooks' cells and the pages' text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

Cells = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def notebooks() -> Cells:
    """The cells of each notebook by its name, their source as one text."""
    found: Cells = {}
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            cell["source"] = "".join(cell["source"])
        found[file.stem] = cells
    return found


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """The text of each page without code, and of those at the root, by its path."""
    files = [*sorted((ROOT / "book").glob("*.md")), *sorted(ROOT.glob("*.md"))]
    return {str(f.relative_to(ROOT)): f.read_text(encoding="utf-8") for f in files}
