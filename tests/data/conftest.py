"""A cache folder and a data folder of the test's own, and a server that misbehaves."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the reader's own cache and data out of the tests, and waits short."""
    monkeypatch.setenv("ANNOTATED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANNOTATED_DATA", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return tmp_path / "cache"


class Server:
    """Serves `content` at any address, as badly as it is told to."""

    def __init__(self) -> None:
        """Serve faithfully until told otherwise."""
        self.content = bytes(range(1, 201)) * 1000
        self.cuts: list[int] = []  # bytes that the next answers send before they end
        self.resumes = True
        self.status = 200
        self.starts: list[int] = []  # where each request wanted to begin
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        asked = handler.headers.get("Range")
        start = int(asked[6:-1]) if asked else 0
        self.starts.append(start)
        if self.status != 200:
            return handler.send_error(self.status)
        if start >= len(self.content):
            return handler.send_error(416)
        start = start if self.resumes else 0
        body = self.content[start:]
        handler.send_response(206 if asked and self.resumes else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        return handler.wfile.write(body[: self.cuts.pop(0) if self.cuts else None])


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        behaviour.address = f"http://127.0.0.1:{http.server_port}/file.bin"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield behaviour
        http.shutdown()
        thread.join()
