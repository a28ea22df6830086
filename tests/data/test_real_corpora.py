"""The real files, where ANNOTATED_DATA has them."""

import hashlib
import itertools
from pathlib import Path

import pytest

from annotated.data import REMOTE_FILES, corpus_path, read_tokens, wordsim_path


@pytest.mark.parametrize("name", ["wordsim353", "simlex999", "analogies"])
def test_benchmarks_are_the_published_files(name: str, data: Path) -> None:
    place, _, size, sha256 = REMOTE_FILES[name]
    if not (data / place).is_file():
        pytest.skip(f"ANNOTATED_DATA has no {place}")
    path = wordsim_path(name)
    assert path == data / place
    assert path.stat().st_size == size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def test_books_begin_as_a_book_does(data: Path) -> None:
    if not (data / "books" / "books.txt.xz").is_file():
        pytest.skip("ANNOTATED_DATA has no books/books.txt.xz")
    sentences = list(itertools.islice(read_tokens(corpus_path("books")), 2000))
    words = [word for sentence in sentences for word in sentence]
    assert len(words) > 50_000
    assert 0.03 < words.count("the") / len(words) < 0.09
    assert all(word == word.lower() for word in words)
