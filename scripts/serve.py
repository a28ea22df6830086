"""Serve the built site, rebuild it when a source changes, and reload the browser.

    python scripts/serve.py [--port 8000]

Pages get a script of two lines that asks, once a second, which build it is looking at.
"""

import argparse
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
SOURCES = ["_config.yml", "_toc.yml", "book", "notebooks", "results"]
RELOAD = b"""<script>
let seen; setInterval(async () => { const now = await (await fetch("/-/build")).text();
if (seen !== undefined && now !== seen) location.reload(); seen = now; }, 1000);
</script>"""


class State:
    """Which build is on show: a number that grows with each finished build."""

    build = 0


class Handler(SimpleHTTPRequestHandler):
    """Files of the site, with the reload script at the end of each page."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        """Serve the site's folder."""
        super().__init__(*arguments, directory=str(SITE), **keywords)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with the build's number, a page with the script, or a file."""
        if self.path == "/-/build":
            self.answer(str(State.build).encode(), "text/plain")
            return
        path = Path(self.translate_path(self.path))
        page = path / "index.html" if path.is_dir() else path
        if page.suffix == ".html" and page.is_file() and self.path_is_final(path):
            self.answer(page.read_bytes() + RELOAD, "text/html; charset=utf-8")
        else:
            super().do_GET()

    def path_is_final(self, path: Path) -> bool:
        """A folder without its slash is redirected first, so that links resolve."""
        return not path.is_dir() or self.path.split("?")[0].endswith("/")

    def answer(self, body: bytes, kind: str) -> None:
        """Send one body that is never cached."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay quiet: the terminal shows builds, not requests."""


def stamps() -> dict[Path, int]:
    """Return every source file with the time of its last change."""
    files = (
        file
        for source in SOURCES
        for file in [ROOT / source, *(ROOT / source).rglob("*")]
        if file.is_file() and ".ipynb_checkpoints" not in file.parts
    )
    return {file: file.stat().st_mtime_ns for file in files}


def watch() -> None:
    """Rebuild after each change; a failed build leaves the last good one on show."""
    seen = stamps()
    while True:
        time.sleep(0.5)
        try:
            now = stamps()
        except FileNotFoundError:  # a file was renamed while we looked
            continue
        if now != seen:
            seen = now
            build = ["make", "--silent", "site", "WHOLE="]
            if subprocess.run(build, cwd=ROOT).returncode == 0:
                State.build += 1


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        reason = error.strerror
        raise SystemExit(
            f"port {port}: {reason}; choose another: make serve PORT={port + 1}"
        ) from None
    threading.Thread(target=watch, daemon=True).start()
    print(f"serving on http://127.0.0.1:{port}/ (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
