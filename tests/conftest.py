"""What tests of several parts share."""

import os
from pathlib import Path

import pytest

DATA = os.environ.get("ANNOTATED_DATA")


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, or a reason to skip."""
    if not DATA:
        pytest.skip("ANNOTATED_DATA names no folder with the real corpora")
    monkeypatch.setenv("ANNOTATED_DATA", DATA)
    return Path(DATA)
