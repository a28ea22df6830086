"""What the tests of the site share: the built site, and a server.

Every page of ``_toc.yml`` is tested, so a new chapter needs no new test. Only of the
modules' pages in the API, all written by one template, the browser opens a sample; the
files of all of them are read.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gzip
import hashlib
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"
SOURCES = ("_config.yml", "_toc.yml", "book", "notebooks", "results", "src")
# Every kind of entry (a test of the API counts them), and the longest names.
API_SAMPLE = {"book/api/index", "book/api/training", "book/api/word2vec"}


@dataclass(frozen=True)
class Site:
    """The built site: its folder, what the build printed, and its pages."""

    html: Path
    log: str
    pages: tuple[str, ...]
    opened: tuple[str, ...]  # those that the browser opens on every screen


def table_of_contents() -> tuple[str, ...]:
    """Name the pages of the book in order, as ``_toc.yml`` has them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = toc.get("parts", [toc])
    chapters = [chapter for part in parts for chapter in part["chapters"]]
    files = [
        page["file"]
        for chapter in chapters
        for page in (chapter, *chapter.get("sections", []))
    ]
    return (toc["root"], *files)


def opened() -> tuple[str, ...]:
    """Name the pages that are opened in the browser: of the API's, the sample."""
    pages = table_of_contents()
    return tuple(p for p in pages if p in API_SAMPLE or not p.startswith("book/api/"))


def fingerprint() -> str:
    """Digest everything that the site is made from."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = ROOT / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def build() -> str:
    """Build the whole site, warnings being errors; give what the build printed."""
    stamp, log = BUILD / "tested.sha256", BUILD / "tested.log"
    state = fingerprint()
    if stamp.exists() and stamp.read_text() == state:
        return log.read_text(encoding="utf-8")
    stamp.unlink(missing_ok=True)
    tool = Path(sys.executable).parent / "jupyter-book"
    options = ["-W", "-n", "--keep-going", "--all"]
    done = subprocess.run(
        [tool, "build", ROOT, *options], cwd=ROOT, capture_output=True, text=True
    )
    text = done.stdout + done.stderr
    log.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        stamp.write_text(state)
    return text


@pytest.fixture(scope="session")
def site() -> Site:
    """Build the site if it is not there or older than its sources.

    A warning fails the one test that reads the log; the pages are tested all the same.
    """
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "tested.lock").open("w") as lock:  # one build for all workers
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = build()
    if not (BUILD / "html" / "index.html").exists():
        pytest.fail(f"there is no site to test:\n{log[-2000:]}", pytrace=False)
    return Site(BUILD / "html", log, table_of_contents(), opened())


@functools.cache
def packed(file: Path) -> bytes:
    """Compress a file, once."""
    return gzip.compress(file.read_bytes(), compresslevel=6)


class Quiet(SimpleHTTPRequestHandler):
    """Serve files, text compressed as GitHub Pages does it, and print nothing."""

    TEXT = frozenset({".css", ".html", ".js", ".json", ".svg", ".txt", ".xml"})

    def send_head(self) -> BinaryIO | None:
        """Answer with a compressed file where that is smaller."""
        file = Path(self.translate_path(self.path))
        if file.suffix not in self.TEXT or not file.is_file():
            return super().send_head()
        content = packed(file)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return io.BytesIO(content)

    def log_message(self, *args: object) -> None:
        """Say nothing of a request."""

    def handle(self) -> None:
        """Say nothing either when the browser has left before the answer was whole."""
        with contextlib.suppress(ConnectionError):
            super().handle()


@pytest.fixture(scope="session")
def address(site: Site) -> Iterator[str]:
    """Serve the site on this machine; give its address, which ends in a slash."""
    handler = functools.partial(Quiet, directory=str(site.html))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for ``page_name`` each page in turn."""
    if "page_name" in metafunc.fixturenames:
        names = opened() if "visit" in metafunc.fixturenames else table_of_contents()
        ids = [re.sub(r"^(book|notebooks)/", "", name) for name in names]
        metafunc.parametrize("page_name", names, ids=ids, scope="session")
