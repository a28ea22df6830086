"""Words, sentences, counts and ids, against slow and obvious versions of each."""

import doctest
import gzip
import lzma
import os
import random
import tracemalloc
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated import data
from annotated.data import (
    BOUNDARY,
    DataError,
    Vocabulary,
    count_words,
    encode,
    read_tokens,
    split_words,
)

ALPHABET = "abcABC éÉ'’_-.0 \u0301中ß"
SENTENCES = st.lists(st.text(ALPHABET, max_size=30), max_size=12)


def words_one_by_one(text: str) -> list[str]:
    """The definition of a word, letter by letter."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").lower()
    words, word = [], ""
    for here, after in zip(text, (text + " ")[1:], strict=True):
        joins = here == "'" and word and word[-1] != "'" and after.isalnum()
        if here.isalnum() or joins:
            word += here
        elif word:
            words.append(word)
            word = ""
    return words + [word] * bool(word)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(data).failed == 0


@settings(deadline=None)
@given(st.text(ALPHABET))
def test_words_are_what_the_definition_says(text: str) -> None:
    assert split_words(text) == words_one_by_one(text)


@settings(deadline=None)
@given(SENTENCES)
def test_counts_are_those_of_brute_force(sentences: list[str]) -> None:
    every = [word for line in sentences for word in words_one_by_one(line)]
    counts = {word: every.count(word) for word in set(every)}
    if len(counts) < 2:
        with pytest.raises(DataError, match="needs two"):
            count_words(sentences, min_count=1)
        return
    vocabulary = count_words(sentences, min_count=1)
    assert (
        dict(zip(vocabulary.words, vocabulary.counts.tolist(), strict=True)) == counts
    )
    order = [(-counts[word], word) for word in vocabulary.words]
    assert order == sorted(order)


@settings(deadline=None)
@given(SENTENCES, st.integers(1, 4), st.randoms())
def test_order_of_lines_does_not_matter(
    sentences: list[str], floor: int, chance: random.Random
) -> None:
    kept = [
        w for w, n in Counter(sum(read_tokens(sentences), [])).items() if n >= floor
    ]
    if len(kept) >= 2:
        shuffled = chance.sample(sentences, len(sentences))
        first, second = (count_words(s, floor) for s in (sentences, shuffled))
        assert first.words == second.words
        assert set(first.words) == set(kept)


@settings(deadline=None)
@given(SENTENCES)
def test_ids_lead_back_to_the_sentences(sentences: list[str]) -> None:
    words = sorted({"a", "b"} | {w for s in read_tokens(sentences[::2]) for w in s})
    vocabulary = Vocabulary(words, torch.ones(len(words), dtype=torch.int64))
    known = [[w for w in s if w in vocabulary] for s in read_tokens(sentences)]
    known = [sentence for sentence in known if sentence]
    if not known:
        with pytest.raises(DataError, match="none of its words"):
            encode(sentences, vocabulary)
        return
    tokens = encode(sentences, vocabulary)
    assert tokens.dtype == torch.int32
    back: list[list[str]] = [[]]
    for i in tokens.tolist():
        if i == BOUNDARY:
            back.append([])
        else:
            back[-1].append(vocabulary.words[i])
    assert back == [*known, []]


WRITERS: dict[str, Callable[[Path, bytes], object]] = {
    ".txt": Path.write_bytes,
    ".gz": lambda path, text: path.write_bytes(gzip.compress(text)),
    ".xz": lambda path, text: path.write_bytes(lzma.compress(text)),
    ".zip": lambda path, text: zip_of(path, {"text": text}),
}


def zip_of(path: Path, files: dict[str, bytes]) -> None:
    """Write a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=30, deadline=None)
@given(sentences=SENTENCES, line_end=st.sampled_from(["\n", "\r\n"]))
def test_a_file_reads_as_its_lines(
    suffix: str, sentences: list[str], line_end: str
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"text{suffix}"
        WRITERS[suffix](path, line_end.join(sentences).encode())
        assert list(read_tokens(path)) == list(read_tokens(sentences))


def test_a_byte_order_mark_is_no_word(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one two\n", encoding="utf-8-sig")
    assert list(read_tokens(tmp_path / "x.txt")) == [["one", "two"]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 99_999), max_size=60))
def test_long_lines_are_cut_between_words(numbers: list[int]) -> None:
    block = data.BLOCK
    data.BLOCK = 16
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "long.txt"
            path.write_text(" ".join(f"é{n}" for n in numbers))
            assert sum(read_tokens(path), []) == [f"é{n}" for n in numbers]
    finally:
        data.BLOCK = block


def test_long_sentences_are_cut_each_thousand_words() -> None:
    lengths = [len(s) for s in read_tokens(["a " * 2000, "b " * 2001, "c"])]
    assert lengths == [1000, 1000, 1000, 1000, 1, 1]


def test_the_vocabulary_knows_its_words() -> None:
    vocabulary = count_words(["b b a", "c c c"], min_count=2)
    assert (vocabulary.words, vocabulary.counts.tolist()) == (["c", "b"], [3, 2])
    assert (len(vocabulary), vocabulary["b"], "a" in vocabulary) == (2, 1, False)
    with pytest.raises(DataError, match="'a' is not among the 2"):
        vocabulary["a"]


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    path = tmp_path / "large.txt.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(f"word{i % 2000} and others " * 50 + "\n" for i in range(3000))
    tracemalloc.start()
    try:
        vocabulary = count_words(path, progress=False)
        tokens = encode(path, vocabulary, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tokens) == 3000 * 151
    assert peak < 1_000_000  # the ids alone are 1.8 million bytes


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    """A small text file."""
    path = tmp_path / "poem.txt"
    path.write_text("tyger tyger burning bright\nin the forests of the night\n")
    return path


def test_encoding_once_is_enough(
    poem: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = count_words(poem, 1, progress=False)
    first = encode(poem, vocabulary, progress=False)
    monkeypatch.setattr(data, "read_tokens", None)  # would fail if it were called
    assert encode(str(poem), vocabulary, progress=False).tolist() == first.tolist()
    assert len(list((cache / "encoded").iterdir())) == 1


def test_encoded_again_when_text_or_vocabulary_changes(poem: Path, cache: Path) -> None:
    vocabulary = count_words(poem, 1, progress=False)
    assert len(encode(poem, vocabulary, progress=False)) == 12
    fewer = count_words(poem, 2, progress=False)
    assert encode(poem, fewer, progress=False).tolist() == [1, 1, -1, 0, 0, -1]

    before = poem.stat()
    poem.write_text("tyger tyger burning bright\nin the forests of the tyger\n")
    os.utime(poem, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert poem.stat().st_size == before.st_size
    assert encode(poem, fewer, progress=False).tolist() == [1, 1, -1, 0, 0, 1, -1]
    assert encode(poem, fewer, cache=False, progress=False).tolist()[-2] == 1
    assert len(list((cache / "encoded").iterdir())) == 3


def test_writing_to_the_ids_leaves_the_cache_alone(poem: Path) -> None:
    vocabulary = count_words(poem, 1, progress=False)
    tokens = encode(poem, vocabulary, progress=False)
    before = tokens.tolist()
    tokens.fill_(7)
    assert encode(poem, vocabulary, progress=False).tolist() == before
