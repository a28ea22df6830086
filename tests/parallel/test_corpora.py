"""The corpora that have names, and those that a reader brings."""

import gzip
import hashlib
import lzma
from collections import Counter
from pathlib import Path

import pytest

from annotated import parallel
from annotated.data import REMOTE_FILES, DataError, known_file
from annotated.little_language import little_splits
from annotated.parallel import parallel_lines, split_of

SIZES = {"train": 29_000, "val": 1_014, "test2016": 1_000}


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("pair", ["en-de", "de-en", "en-fr", "fr-en"])
def test_multi30k(pair: str, split: str, data: Path) -> None:
    sources, targets = parallel_lines("multi30k", pair, split)
    assert len(sources) == len(targets) == SIZES[split]
    back = parallel_lines("multi30k", "-".join(reversed(pair.split("-"))), split)
    assert back == (targets, sources)


@pytest.mark.parametrize("name", [name for name in REMOTE_FILES if "multi30k" in name])
def test_multi30k_files_are_the_published_ones(name: str, data: Path) -> None:
    path = known_file(name, progress=False)
    _, address, size, sha256 = REMOTE_FILES[name]
    assert address.endswith(path.name)
    assert path.stat().st_size == size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def test_tatoeba_shares_no_english_sentence_between_splits(data: Path) -> None:
    splits = [parallel_lines("tatoeba", "en-zh", s) for s in ("train", "val", "test")]
    assert sum(len(english) for english, _ in splits) == 20_133
    assert all(800 < len(english) < 1_200 for english, _ in splits[1:])
    train, val, test = (set(english) for english, _ in splits)
    assert not train & val and not train & test and not val & test
    chinese, english = parallel_lines("tatoeba", "zh-en", "test")
    assert (english, chinese) == splits[2]


def test_tatoeba_of_later_years_has_a_third_column(cache: Path) -> None:
    path = cache / "tatoeba-en-zh" / "cmn.txt"
    path.parent.mkdir(parents=True)
    path.write_text(
        "Hi.\t嗨。\tCC-BY 2.0 (France)\nRun.\t你跑。\tx\n", encoding="utf-8"
    )
    assert parallel_lines("tatoeba", "en-zh", "all")[1] == ["嗨。", "你跑。"]


@pytest.mark.parametrize("language", ["fr", "zh"])
def test_little(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = little_splits(language, train=30, test=20)
    monkeypatch.setattr(parallel, "little_corpus", {language: small}.__getitem__)
    assert set(small) == set(parallel.LITTLE_SPLITS)
    for split, pairs in small.items():
        sources, targets = parallel_lines("little", f"en-{language}", split)
        assert list(zip(sources, targets, strict=True)) == [p[:2] for p in pairs]


@pytest.mark.parametrize("end", ["", ".gz", ".xz"])
def test_two_files_plain_or_packed(end: str, files: tuple[Path, Path]) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[end]
    expected = tuple(path.read_text("utf-8").splitlines() for path in files)
    for path in files:
        content = path.read_bytes()
        path.unlink()
        path.with_name(path.name + end).write_bytes(pack(content))
    prefix = str(files[0].with_suffix(""))
    assert parallel_lines(prefix, "en-de", "all") == expected
    by_name = ",".join(f"{path}{end}" for path in files)
    assert parallel_lines(by_name, "en-de", "all") == expected


def test_a_folder_with_files_by_split(files: tuple[Path, Path]) -> None:
    folder = files[0].parent
    for path in files:
        path.rename(folder / f"val{path.suffix}")
    sources, _ = parallel_lines(str(folder), "en-de", "val")
    assert sources[0] == "A dog runs."


def test_wmt14_is_where_the_reader_has_put_it(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = files[0].parent / "data"
    (folder / "wmt14").mkdir(parents=True)
    monkeypatch.setenv("ANNOTATED_DATA", str(folder))
    for path, end in zip(files, (".gz", ""), strict=True):
        pack = gzip.compress if end else bytes
        name = f"newstest2013{path.suffix}{end}"
        (folder / "wmt14" / name).write_bytes(pack(path.read_bytes()))
    sources, _ = parallel_lines("wmt14", "en-de", "newstest2013")
    assert sources[0] == "A dog runs."
    with pytest.raises(DataError, match=r"no wmt14/train\.en .*statmt\.org"):
        parallel_lines("wmt14", "en-de", "train")
    with pytest.raises(DataError, match="sacrebleu -t wmt13 -l en-de"):
        parallel_lines("wmt14", "en-de", "newstest2014")


def test_windows_line_ends_are_no_part_of_a_sentence(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes().replace(b"\n", b"\r\n"))
    sources, _ = parallel_lines(str(files[0].with_suffix("")), "en-de", "all")
    assert sources[0] == "A dog runs."


def test_a_line_separator_of_unicode_ends_no_line(files: tuple[Path, Path]) -> None:
    text = files[0].read_text("utf-8").replace("dog runs", "dog\u2028runs")
    files[0].write_text(text, encoding="utf-8")
    assert len(parallel_lines(str(files[0].with_suffix("")), "en-de", "all")[0]) == 3


def test_splits_by_hash_are_what_they_were() -> None:
    found = Counter(split_of(f"sentence {i}") for i in range(10_000))
    assert found == {"train": 8985, "val": 512, "test": 503}
