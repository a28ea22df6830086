"""Each way in which two files may be no parallel corpus: one line that helps."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from annotated.data import DataError
from annotated.parallel import (
    Batches,
    StreamedPairs,
    parallel_files,
    parallel_lines,
    read_pairs,
)
from annotated.subwords import Words

Change = Callable[[bytes], bytes]
LONG = b"word " * 100_000
CASES: dict[str, tuple[str, Change, str]] = {
    # name: (side that is spoiled, how, message)
    "target one line short": (
        "de",
        lambda text: text[: text.rindex(b"Das")],
        r"text\.de, line 3: not there, the file has 2 lines and .*text\.en has 3; ",
    ),
    "source one line short": (
        "en",
        lambda text: text[: text.rindex(b"The")],
        r"text\.en, line 3: not there, the file has 2 lines and .*text\.de has 3; ",
    ),
    "target twice as long": (
        "de",
        lambda text: text * 2,
        r"text\.en, line 4: not there, the file has 3 lines and .*text\.de has 6; ",
    ),
    "an empty file": ("de", lambda text: b"", r"text\.de, line 1: not there"),
    "an empty line": (
        "de",
        lambda text: text.replace(b"Das M\xc3\xa4dchen ist im Meer.", b""),
        r"text\.de, line 3: empty.*delete the line with this number from both",
    ),
    "a line of blanks": (
        "en",
        lambda text: text.replace(b"A dog runs.", b" \t\xe3\x80\x80"),
        r"text\.en, line 1: empty",
    ),
    "Latin-1": (
        "de",
        lambda text: text.decode().encode("latin-1"),
        r"text\.de, line 2: byte 7 of the line, 0xe4, is not UTF-8; .*iconv",
    ),
    "100,000 words": (
        "de",
        lambda text: text.replace(b"Zwei", LONG),
        r"text\.de, line 2: more than 1,000 words",
    ),
    "1,001 words": (
        "de",
        lambda text: text.replace(b"Zwei", b"w " * 1001),
        r"text\.de, line 2: more than 1,000 words",
    ),
    "a blank, then no end": (
        "de",
        lambda text: text.replace(b"Zwei", b"a " + b"b" * 65_000),
        r"text\.de, line 2: more than 10,000 letters",
    ),
    "no blank in sight": (
        "de",
        lambda text: text.replace(b"Zwei", b"b" * 70_000),
        r"text\.de, line 2: no space",
    ),
    "UTF-16": ("en", lambda text: text.decode().encode("utf-16"), "a binary file"),
}


def spoil(files: tuple[Path, Path], case: str) -> str:
    """Spoil one of the files; return the expected message."""
    side, change, message = CASES[case]
    path = files[side == "de"]
    path.write_bytes(change(path.read_bytes()))
    return message


@pytest.mark.parametrize("case", CASES)
def test_reading_says_what_is_wrong(case: str, files: tuple[Path, Path]) -> None:
    message = spoil(files, case)
    folder = files[0].parent
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=message) as error:
        parallel_lines(str(files[0].with_suffix("")), "en-de", "all")
    assert "\n" not in str(error.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", CASES)
def test_streaming_says_the_same(case: str, files: tuple[Path, Path]) -> None:
    message = spoil(files, case)
    words = Words.learn(["one"])
    with pytest.raises(DataError, match=message):
        StreamedPairs(files, (words, words))


def test_bad_pairs_are_left_out_on_request(files: tuple[Path, Path]) -> None:
    for case in ("an empty line", "100,000 words"):
        spoil(files, case)
    assert [pair.number for pair in read_pairs(*files, skip=True)] == [1]
    assert parallel_lines(str(files[0].with_suffix("")), "en-de", "all", skip=True) == (
        ["A dog runs."],
        ["Ein Hund rennt."],
    )


def test_a_missing_line_is_never_forgiven(files: tuple[Path, Path]) -> None:
    message = spoil(files, "target one line short")
    with pytest.raises(DataError, match=message):
        list(read_pairs(*files, skip=True))


@pytest.mark.parametrize(
    ("end", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_a_truncated_archive_tells_how_far_it_goes(
    end: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    lines = b"".join(b"line number %d of a long file\n" % i for i in range(20_000))
    plain, packed = tmp_path / "a.en", tmp_path / f"a.de{end}"
    plain.write_bytes(lines)
    packed.write_bytes(pack(lines)[:-2000])
    with pytest.raises(
        DataError, match=r"damaged or cut short .* get it again"
    ) as error:
        list(read_pairs(plain, packed))
    number = int(str(error.value).split("after line ")[1].split(":")[0])
    assert str(packed) in str(error.value)
    assert 5_000 < number < 20_000


def test_a_missing_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.de: cannot read it \(No such file"):
        list(read_pairs(files[0], tmp_path / "no.de"))


def test_the_wrong_language_order(files: tuple[Path, Path]) -> None:
    english, german = files
    for path in files:
        path.write_bytes(path.read_bytes() * 3)
    with pytest.raises(
        DataError,
        match=r"text\.de, line 1: this is German, and the pair en-de wants English "
        "here; exchange the two files, or ask for the pair de-en",
    ):
        parallel_lines(f"{german},{english}", "en-de", "all")
    assert parallel_lines(f"{german},{english}", "de-en", "all")[0][0][:3] == "Ein"
    words = Words.learn(["one"])
    with pytest.raises(DataError, match=r"text\.de, line 1: this is German"):
        StreamedPairs((german, english), (words, words), pair="en-de")


def test_one_file_given_twice(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes() * 3)
    with pytest.raises(DataError, match=r"text\.en, line \d: this is English"):
        parallel_lines(f"{files[0]},{files[0]}", "en-de", "all")


def test_chinese_is_known_by_its_script(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("我喜欢喝茶。\n", encoding="utf-8")
    (tmp_path / "a.zh").write_text("I like the tea of the house.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.en, line 1: this is Chinese"):
        parallel_lines(str(tmp_path / "a"), "en-zh", "all")


def test_unknown_languages_are_not_judged(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes() * 3)
    assert parallel_lines(f"{files[0]},{files[0]}", "cs-fi", "all")[0]


@pytest.mark.parametrize("pair", ["", "en", "en-", "en-en", "English-German", "en_de"])
def test_what_is_no_pair(pair: str) -> None:
    with pytest.raises(DataError, match="no pair of languages; give two codes"):
        parallel_lines("multi30k", pair, "train")


@pytest.mark.parametrize(
    ("data", "pair", "split", "message"),
    [
        ("multi30k", "en-zh", "train", "its languages are en, de and fr"),
        ("multi30k", "en-de", "test", "its splits train, val and test2016"),
        ("tatoeba", "en-de", "train", "its pairs are en-zh and zh-en"),
        (
            "tatoeba",
            "en-zh",
            "train",
            r"unpack https://.*cmn-eng\.zip and put cmn\.txt",
        ),
        ("little", "fr-en", "train", "its pairs are en-fr and en-zh"),
        ("little", "en-fr", "test", "give train, validation, random, longer, unseen"),
        (
            "nowhere",
            "en-de",
            "train",
            r"no files train\.en and train\.de in it, and no ",
        ),
    ],
)
def test_what_is_not_there(data: str, pair: str, split: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        parallel_lines(data, pair, split)
    assert "\n" not in str(error.value)


def test_two_files_have_these_splits(files: tuple[Path, Path]) -> None:
    prefix = str(files[0].with_suffix(""))
    with pytest.raises(DataError, match="give train, val, test or all"):
        parallel_lines(prefix, "en-de", "test2016")
    for path in files:
        path.write_text("Run.", encoding="utf-8")
    with pytest.raises(DataError, match="no pair of sentences"):
        parallel_lines(prefix, "en-de", "test")
    assert parallel_files(prefix, "en-de", "test") == (*files, False)


def test_sentences_that_make_no_batches() -> None:
    with pytest.raises(DataError, match="0 sentences and 0 translations"):
        Batches([], [])
    with pytest.raises(DataError, match="2 sentences and 1 translations"):
        Batches([[3], [4]], [[3]])
    with pytest.raises(DataError, match=r"pair 2: a side of 101 tokens.*holds 100;"):
        Batches([[3], [4]], [[3], [5] * 100], tokens=100)


def test_a_sentence_too_long_for_a_batch_is_named_in_a_stream(
    files: tuple[Path, Path],
) -> None:
    words = tuple(Words.learn(path.read_text("utf-8").splitlines()) for path in files)
    with pytest.raises(DataError, match=r"text\.en, line 2: \d+ tokens, and a batch "):
        list(StreamedPairs(files, words, tokens=6).epoch())
    assert (
        sum(
            len(batch.source)
            for batch in StreamedPairs(files, words, tokens=6, skip=True).epoch()
        )
        < 3
    )
