"""Downloads from a server on this machine: whole, cut, resumed, wrong, absent."""

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from annotated import data
from annotated.data import DataError, corpus_path, download, wordsim_path


def fetch(server: Any, path: Path, content: bytes | None = None) -> Path:
    """Download what the server has; `content` is what we expect of it."""
    content = server.content if content is None else content
    sha256 = hashlib.sha256(content).hexdigest()
    return download(server.address, path, len(content), sha256, progress=False)


def names(folder: Path) -> list[str]:
    """Everything in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_brings_a_file(server: Any, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "new" / "file.bin")
    assert path.read_bytes() == server.content
    assert names(path.parent) == ["file.bin"]


def test_resumes_within_one_call(server: Any, tmp_path: Path) -> None:
    server.cuts = [70_000, 60_000]
    path = fetch(server, tmp_path / "file.bin")
    assert path.read_bytes() == server.content
    assert server.starts == [0, 70_000, 130_000]


def test_keeps_what_came_for_the_next_run(server: Any, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(DataError, match=r"3,000 of 200,000 bytes are here") as error:
        fetch(server, tmp_path / "file.bin")
    assert "\n" not in str(error.value)
    assert names(tmp_path) == ["file.bin.part"]
    assert fetch(server, tmp_path / "file.bin").read_bytes() == server.content
    assert server.starts[-1] == 3000
    assert names(tmp_path) == ["file.bin"]


def test_starts_over_when_the_server_cannot_resume(server: Any, tmp_path: Path) -> None:
    server.cuts = [1000]
    server.resumes = False
    assert fetch(server, tmp_path / "file.bin").read_bytes() == server.content


@pytest.mark.parametrize("extra", [b"", b"more than there should be"])
def test_refuses_other_content_and_leaves_nothing(
    server: Any, tmp_path: Path, extra: bytes
) -> None:
    expected = server.content
    server.content = b"x" + expected[1:] + extra
    with pytest.raises(DataError, match="wrong content"):
        fetch(server, tmp_path / "file.bin", expected)
    assert names(tmp_path) == []


def test_a_part_of_something_else_is_found_out(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"of something else")
    with pytest.raises(DataError, match="wrong content"):
        fetch(server, tmp_path / "file.bin")
    assert fetch(server, tmp_path / "file.bin").read_bytes() == server.content


def test_a_part_longer_than_the_file_is_dropped(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 300_000)
    assert fetch(server, tmp_path / "file.bin").read_bytes() == server.content


def test_no_network(server: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server.address = f"http://127.0.0.1:{port}/file.bin"
    with pytest.raises(DataError) as error:
        fetch(server, tmp_path / "file.bin")
    for wanted in ("file.bin", server.address, "refused", str(tmp_path), "put it at"):
        assert wanted in str(error.value)
    assert names(tmp_path) == []


def test_an_address_without_the_file(server: Any, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="the server said 404"):
        fetch(server, tmp_path / "file.bin")
    assert names(tmp_path) == []


def test_a_busy_server_costs_nothing_that_came(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(server.content[:5000])
    server.status = 503
    with pytest.raises(DataError, match="503"):
        fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").stat().st_size == 5000


def test_a_folder_that_cannot_be_made(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot download"):
        fetch(server, tmp_path / "file" / "file.bin")


def test_data_folder_then_cache_then_network(
    server: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(server.content).hexdigest()
    remote = ("here/x.txt", server.address, len(server.content), sha256)
    monkeypatch.setitem(data.REMOTE_FILES, "analogies", remote)
    monkeypatch.setenv("ANNOTATED_DATA", str(tmp_path / "data"))

    assert wordsim_path("analogies", progress=False) == cache / "here" / "x.txt"
    assert len(server.starts) == 1
    assert wordsim_path("analogies", progress=False) == cache / "here" / "x.txt"
    assert len(server.starts) == 1

    given = tmp_path / "data" / "here" / "x.txt"
    given.parent.mkdir(parents=True)
    given.write_text("mine")
    assert wordsim_path("analogies", progress=False) == given


def test_text8_is_downloaded(
    server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(server.content).hexdigest()
    remote = ("text8.zip", server.address, len(server.content), sha256)
    monkeypatch.setitem(data.REMOTE_FILES, "text8", remote)
    assert corpus_path("text8", progress=False) == cache / "text8.zip"


def test_says_how_to_get_the_books(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        corpus_path("books")
    for wanted in ("mlschmitt/classic-books-markdown", str(cache), "ANNOTATED_DATA"):
        assert wanted in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.txt", "wordsim353", ""])
def test_an_unknown_corpus(name: str) -> None:
    with pytest.raises(DataError, match="text8, books, little-world"):
        corpus_path(name)


def test_an_unknown_benchmark() -> None:
    with pytest.raises(DataError, match="wordsim353, simlex999 or analogies"):
        wordsim_path("text8")


def test_a_bar_shows_the_bytes(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = hashlib.sha256(server.content).hexdigest()
    download(server.address, tmp_path / "file.bin", len(server.content), sha256)
    assert "200k/200k" in capsys.readouterr().err
