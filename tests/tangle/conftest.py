"""A small book to try tangle on."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from tangle.__main__ import main

URL = "https://example.org/us/book"


class Result(NamedTuple):
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


def code(name: str, source: str, *tags: str, printed: str = "") -> dict[str, Any]:
    """A code cell, as a notebook file holds it."""
    output = {"name": "stdout", "output_type": "stream", "text": printed}
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {"tags": list(tags)} if tags else {},
        "outputs": [output] if printed else [],
        "source": source,
    }


def text(name: str, source: str) -> dict[str, Any]:
    """A cell of prose."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


class Book:
    """A folder with notebooks; `run` runs the command in it."""

    code = staticmethod(code)
    text = staticmethod(text)

    def __init__(self, root: Path) -> None:
        """Start with no notebooks."""
        self.root = root
        self.listed: list[str] = []
        (root / "notebooks").mkdir()
        (root / "_config.yml").write_text(f"repository:\n  url: {URL}\n")
        self.list_pages()

    def list_pages(self) -> None:
        """Write `_toc.yml`: a page of prose, then the notebooks."""
        files = "".join(f"      - file: notebooks/{name}\n" for name in self.listed)
        (self.root / "_toc.yml").write_text(
            "format: jb-book\nroot: book/index\nparts:\n  - chapters:\n"
            f"      - file: book/how-to-read\n{files}"
        )

    def add(self, name: str, module: str | None, *cells: dict[str, Any]) -> None:
        """Append a notebook to the book."""
        title = text("title", f"# About {name}\n\nSome prose.")
        data = {
            "cells": [title, *cells],
            "metadata": {"annotated": {"module": module}} if module else {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        self.save(name, data)
        self.listed.append(name)
        self.list_pages()

    def path(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"

    def load(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def save(self, name: str, data: Any) -> None:
        self.path(name).write_text(json.dumps(data), encoding="utf-8")

    def source(self, name: str, cell: str) -> str:
        """The source of one cell."""
        found = next(c for c in self.load(name)["cells"] if c["id"] == cell)
        return "".join(found["source"])

    def put(self, name: str, cell: str, source: str) -> None:
        """Give a cell a new source."""
        data = self.load(name)
        next(c for c in data["cells"] if c["id"] == cell)["source"] = source
        self.save(name, data)

    def module(self, name: str) -> Path:
        return self.root / "src" / "annotated" / f"{name}.py"

    def run(self, *arguments: str) -> Result:
        """Run `tangle` with these arguments."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*arguments, "--root", str(self.root)])
        return Result(status, out.getvalue(), err.getvalue())

    def files(self) -> dict[str, bytes]:
        """All files of the book, byte for byte."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    def refuses(self, *arguments: str) -> str:
        """Run a command that must fail: one line, no file touched. Return the line."""
        before = self.files()
        result = self.run(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("tangle: ")
        assert result.err.count("\n") == 1
        assert self.files() == before
        return result.err


@pytest.fixture(scope="session")
def new_book() -> Callable[[], contextlib.AbstractContextManager[Book]]:
    """Make an empty book; for tests that need many."""

    @contextlib.contextmanager
    def make() -> Iterator[Book]:
        with TemporaryDirectory() as folder:
            yield Book(Path(folder))

    return make


@pytest.fixture
def empty(tmp_path: Path) -> Book:
    """A book without notebooks."""
    return Book(tmp_path)


@pytest.fixture
def book(empty: Book) -> Book:
    """Two notebooks: data, and a model that imports from it."""
    empty.add(
        "a_data",
        "annotated.data",
        code("imports", "import math\nfrom dataclasses import dataclass", "export"),
        code("limit", "LIMIT = 2\n\n\ndef root(x):\n    return math.sqrt(x)", "export"),
        code("try-it", "sample = [root(4)]\nprint(sample)", printed="[2.0]\n"),
        code(
            "config",
            '@dataclass(frozen=True)\nclass Config:\n    """Sizes."""\n\n    size: int'
            " = LIMIT\n\n    def half(self):\n        return self.size // 2",
            "export",
            printed="stale\n",
        ),
        code("helper", "def helper(x):\n    return x", "export-private"),
    )
    empty.add(
        "01_model",
        "annotated.model",
        code("imports", "from annotated.data import Config, root", "export"),
        code("plot", "%matplotlib inline\nfigure = 1"),
        code("model", "def model(config: Config):\n    return root(1)", "export"),
    )
    return empty
