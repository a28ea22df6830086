"""No data of the reader's own, and two small parallel files."""

from pathlib import Path

import pytest

ENGLISH = "A dog runs.\nTwo men talk in the street.\nThe girl is in the water.\n"
GERMAN = "Ein Hund rennt.\nZwei Männer reden dort.\nDas Mädchen ist im Meer.\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the reader's own cache and data out of the tests."""
    monkeypatch.setenv("ANNOTATED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANNOTATED_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of three lines, English and German."""
    source, target = tmp_path / "text.en", tmp_path / "text.de"
    source.write_text(ENGLISH, encoding="utf-8")
    target.write_text(GERMAN, encoding="utf-8")
    return source, target
