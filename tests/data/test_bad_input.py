"""Each thing that a reader may get wrong: one line that helps, and nothing left."""

import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from annotated.data import DataError, Vocabulary, count_words, encode, replacing


def two_files(path: Path) -> None:
    """A zip archive with a choice in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
        archive.writestr("b.txt", "b")


def broken_zip(path: Path) -> None:
    """A zip archive with one byte of its content changed."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "some words and more words " * 9)
    path.write_bytes(path.read_bytes().replace(b"more", b"less", 1))


WORDS = b"some words and more words " * 1000
CASES: dict[str, tuple[str, Callable[[Path], object] | bytes, str]] = {
    "missing": ("x.txt", lambda path: None, "cannot read it"),
    "a folder": ("x.txt", Path.mkdir, "cannot read it"),
    "empty": ("x.txt", b"", "of its 0 words, .* a vocabulary of 0"),
    "only blanks": ("x.txt", b" \n\n \t\n", "of its 0 words"),
    "one word": ("x.txt", b"word " * 9, "vocabulary of 1, and it needs two"),
    "rare words": ("x.txt", b"a b c d", "min_count=5 times"),
    "binary": ("x.txt", b"\x7fELF\x02\x01\x01\x00\x00\x00", "a binary file"),
    "UTF-16": ("x.txt", "some words".encode("utf-16"), "binary file.*UTF-8"),
    "Latin-1": ("x.txt", b"one\ntwo caf\xe9\n", "line 2: byte 8 of the line, 0xe9"),
    "no spaces": ("x.txt", b"x" * 100_000, "line 1: no space in"),
    "cut .gz": ("x.gz", gzip.compress(WORDS)[:-9], "damaged or cut"),
    "no .gz": ("x.gz", WORDS, "damaged or cut"),
    "cut .xz": ("x.xz", lzma.compress(WORDS)[:-40], "damaged or cut"),
    "no .xz": ("x.xz", WORDS, "damaged or cut"),
    "no .zip": ("x.zip", WORDS, "damaged or cut"),
    "broken .zip": ("x.zip", broken_zip, "damaged or cut"),
    "two files": ("x.zip", two_files, "expected one text file .* found 2"),
}


@pytest.mark.parametrize("case", CASES)
def test_counting_says_what_is_wrong(case: str, tmp_path: Path) -> None:
    name, make, message = CASES[case]
    path = tmp_path / name
    if isinstance(make, bytes):
        path.write_bytes(make)
    else:
        make(path)
    with pytest.raises(DataError, match=message) as error:
        count_words(path, progress=False)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_encoding_says_it_too_and_leaves_nothing(
    case: str, tmp_path: Path, cache: Path
) -> None:
    name, make, _ = CASES[case]
    path = tmp_path / name
    if isinstance(make, bytes):
        path.write_bytes(make)
    else:
        make(path)
    vocabulary = Vocabulary(["fish", "fowl"], torch.tensor([2, 1]))
    with pytest.raises(DataError, match=r"x\.") as error:
        encode(path, vocabulary, progress=False)
    assert "\n" not in str(error.value)
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_an_error_late_in_the_file_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "late.txt"
    path.write_bytes(b"fish and fowl\n" * 9000 + b"\xff\n")
    vocabulary = Vocabulary(["fish", "fowl"], torch.tensor([2, 1]))
    with pytest.raises(DataError, match="line 9001"):
        encode(path, vocabulary, progress=False)
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_a_floor_below_one() -> None:
    with pytest.raises(DataError, match="min_count is 0"):
        count_words(["a b"], min_count=0)


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    (tmp_path / "x.txt").write_text("fish and fowl")
    vocabulary = count_words(tmp_path / "x.txt", 1, progress=False)
    with pytest.raises(DataError, match="cannot write it"):
        encode(tmp_path / "x.txt", vocabulary, progress=False)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, DataError, ZeroDivisionError])
def test_an_interrupted_write_keeps_the_old_file(
    problem: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(problem), replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise problem
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
