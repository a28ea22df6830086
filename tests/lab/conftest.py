"""JupyterLab on a copy of the notebooks, as somebody has it who has just cloned them.

A notebook that came from elsewhere is not trusted, so no script of its outputs runs.
All notebooks take many minutes; ``make test`` opens a sample, and ``make test-lab``
sets ``ANNOTATED_LAB=all``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
# The shortest first: a fault that all share is seen soon.
NOTEBOOKS = sorted(
    (ROOT / "notebooks").glob("*.ipynb"), key=lambda path: path.stat().st_size
)
SAMPLE = {"e_figures"}  # every kind of chart, formulas, tables, and soon executed
PATIENCE = 60  # seconds until Lab has started, or shows what it was asked for


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it is, and the word that lets one in."""

    address: str
    token: str

    def ask(self, path: str, method: str = "GET") -> bytes:
        """Send the server a request; give its answer."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(
            f"{self.address}/{path}", headers=headers, method=method
        )
        with urllib.request.urlopen(request) as answer:
            body: bytes = answer.read()
        return body

    def stop_kernels(self) -> None:
        """End what notebooks have started, so that it takes no memory."""
        for session in json.loads(self.ask("api/sessions")):
            self.ask(f"api/sessions/{session['id']}", "DELETE")


@dataclass
class Opened:
    """A notebook that is open in Lab, and what happened while it opened."""

    book: nbformat.NotebookNode
    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def cells(self, kind: str) -> list[nbformat.NotebookNode]:
        """List the cells of a kind as the file has them."""
        return [cell for cell in self.book.cells if cell.cell_type == kind]


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab on a copy, with nothing of the settings of whoever tests."""
    home = tmp_path_factory.mktemp("lab")
    clone = home / "annotated"
    for folder in ("notebooks", "book"):
        shutil.copytree(ROOT / folder, clone / folder)
    places = {
        name: str(home / name.lower())
        for name in (
            "ANNOTATED_CACHE", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
        )
    }  # fmt: skip
    hidden = {"ANNOTATED_DATA", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    lab = Lab(f"http://127.0.0.1:{free_port()}", "book")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={lab.address.rpartition(':')[2]}"]
    command += [f"--IdentityProvider.token={lab.token}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = home / "log.txt"
    with log.open("w") as said:
        server = subprocess.Popen(
            command, cwd=clone, env=kept | places, stdout=said, stderr=said
        )
    try:
        wait_until_it_answers(lab, server, log)
        yield lab
    finally:
        server.terminate()
        server.wait()


def wait_until_it_answers(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    """Return when Lab is there; fail with its own words when it does not come."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            lab.ask("api")
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"JupyterLab does not start:\n{log.read_text()[-2000:]}", pytrace=False)


@pytest.fixture(scope="session")
def opened(lab: Lab, browser: Browser, notebook: Path) -> Iterator[Opened]:
    """Open one notebook for all the tests that look at it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    opened = Opened(nbformat.read(notebook, as_version=4), page)

    def leave(route) -> None:
        opened.outside.append(route.request.url)
        route.abort()

    own = (lab.address, "data:", "blob:")
    page.route(lambda url: not url.startswith(own), leave)
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            opened.errors.append(message.text) if message.type == "error" else None
        ),
    )
    place = f"lab/workspaces/{notebook.stem}/tree/notebooks/{notebook.name}"
    page.goto(f"{lab.address}/{place}?token={lab.token}")
    # Lab adds cells and draws them a few at a time, when it has nothing else to do.
    page.wait_for_function(
        """([cells, texts]) =>
          document.querySelectorAll(".jp-Notebook .jp-Cell").length === cells &&
          document.querySelectorAll(
            ".jp-MarkdownCell .jp-RenderedMarkdown > *:first-child").length >= texts""",
        arg=[len(opened.book.cells), len(opened.cells("markdown"))],
        timeout=1000 * PATIENCE * (1 + len(opened.book.cells) / 50),
    )
    yield opened
    page.context.close()
    lab.stop_kernels()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for an opened notebook the sample in turn, or all."""
    if "notebook" in metafunc.fixturenames:
        everything = os.environ.get("ANNOTATED_LAB") == "all"
        chosen = [path for path in NOTEBOOKS if everything or path.stem in SAMPLE]
        metafunc.parametrize(
            "notebook", chosen, ids=lambda path: path.stem, scope="session"
        )
