"""Records: what is written, what is refused, and where they are found."""

import doctest
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated import records
from annotated.data import DataError
from annotated.records import (
    SCHEMA,
    commit_of,
    hardware,
    markdown_table,
    processor,
    read_record,
    record_files,
    repository,
    runs_table,
    validate,
    write_record,
)

ROOT = Path(__file__).parents[2]


def write(folder: Path, name: str = "a-run", **changes: Any) -> Path:
    """Write a record that is right but for the changes."""
    fields: dict[str, Any] = {
        "kind": "training",
        "command": "annotated embed",
        "config": {"dim": 100, "corpus": "books"},
        "metrics": {"loss": 1.5, "words": 17_000_000},
    }
    return write_record(name, **fields | changes, folder=folder)


def test_every_record_of_the_book_is_valid() -> None:
    """And its file is as the helper writes it: nobody edited it by hand."""
    for path in sorted((ROOT / "results").glob("*.json")):
        record = read_record(path)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        assert path.read_text(encoding="utf-8") == text, path.name
        assert read_record(path.stem) == record


def test_results_hold_nothing_but_records() -> None:
    others = [p.name for p in (ROOT / "results").rglob("*") if p.is_file()]
    assert not [n for n in others if not n.endswith((".json", ".md", ".gitkeep"))]


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(records).failed == 0


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    path = write(tmp_path, packages=["numpy", "no-such-package"])
    assert [p.name for p in tmp_path.iterdir()] == ["a-run.json"]
    record = read_record(path)
    assert set(record) == set(SCHEMA["required"])
    assert record["metrics"] == {"loss": 1.5, "words": 17_000_000}
    assert list(record["versions"]) == [
        *("python", "torch", "annotated", "numpy", "no-such-package")
    ]
    assert record["versions"]["no-such-package"] == "not installed"
    assert record["hardware"] == hardware()


numbers = st.floats() | st.integers(-(2**53), 2**53)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.from_regex("[a-z][a-z0-9_]*", fullmatch=True), numbers))
def test_finite_metrics_and_no_others(metrics: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        if metrics and all(math.isfinite(value) for value in metrics.values()):
            assert (
                read_record(write(Path(folder), metrics=metrics))["metrics"] == metrics
            )
        else:
            with pytest.raises(DataError, match="metrics"):
                write(Path(folder), metrics=metrics)
            assert not list(Path(folder).iterdir())


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """A valid record."""
    return read_record(write(tmp_path))


@pytest.mark.parametrize("field", SCHEMA["required"])
def test_no_field_may_be_missing(field: str, record: dict[str, Any]) -> None:
    del record[field]
    with pytest.raises(DataError, match=f"'{field}' is a required property"):
        validate(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Not A Name"),
        ("name", "../elsewhere"),
        ("name", "line\n"),
        ("kind", "guess"),
        ("command", ""),
        ("commit", "main"),
        ("date", "yesterday"),
        ("hardware", {"cpu": "fast"}),
        ("versions", {"python": "3", "torch": "2"}),
        ("versions", {"python": "3", "torch": 2, "annotated": "1"}),
        ("config", [1, 2]),
        ("metrics", {}),
        ("metrics", {"loss": "low"}),
        ("metrics", {"loss": True}),
        ("metrics", {"loss": None}),
        ("metrics", {"loss": {"train": 1.0}}),
        ("metrics", {"words per second": 1.0}),
        ("metrics", {"loss": math.nan}),
        ("metrics", {"loss": math.inf}),
        ("remark", "a field of its own"),
    ],
)
def test_what_does_not_fit_is_refused(
    field: str, value: Any, record: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="record") as error:
        validate(record | {field: value})
    assert field in str(error.value)


@pytest.mark.parametrize("junk", [None, [], "text", 3])
def test_what_is_no_record_is_refused(junk: Any) -> None:
    with pytest.raises(DataError, match="is not of type 'object'"):
        validate(junk)


def test_a_refused_record_leaves_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="finite"):
        write(tmp_path, metrics={"loss": math.nan})
    with pytest.raises(DataError, match="config holds what JSON can't"):
        write(tmp_path, config={"folder": tmp_path})
    with pytest.raises(DataError, match="config holds what JSON can't"):
        write(tmp_path, config={"rate": math.nan})
    assert [p.name for p in tmp_path.iterdir()] == ["a-run.json"]
    assert path.read_bytes() == before


def test_files_that_are_no_records(tmp_path: Path) -> None:
    path = write(tmp_path)
    half = tmp_path / "half.json"
    half.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"half\.json: cannot read the record"):
        read_record(half)
    half.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot read the record"):
        read_record(half)
    shutil.copy(path, half)
    with pytest.raises(DataError, match="holds the record a-run; rename"):
        read_record(half)
    with pytest.raises(DataError, match="cannot read the record"):
        read_record(tmp_path / "missing.json")


def test_an_unknown_name_lists_the_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setattr(records, "results_folder", lambda: tmp_path)
    assert "a-run" in record_files()
    with pytest.raises(DataError, match=r"no record 'b-run'; known: .*a-run"):
        read_record("b-run")


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_says_when_something_was_changed(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == "unknown"
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    clean = commit_of(tmp_path)
    assert len(clean) == 40

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text("{}")
    assert commit_of(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert commit_of(tmp_path) == clean + "-dirty"


def test_without_git_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(ROOT) == "unknown"


def test_the_checkout_is_found() -> None:
    assert repository() == ROOT


def test_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("os.sysconf")
    assert processor()
    machine = hardware()
    assert machine["cores"] >= 1
    assert machine["memory_gib"] is None


def test_an_installed_package_brings_its_records(tmp_path: Path) -> None:
    """As in a wheel: no checkout around it, records inside the package."""
    spec = importlib.util.find_spec("annotated")
    assert spec is not None
    assert spec.origin is not None
    package = tmp_path / "site" / "annotated"
    shutil.copytree(Path(spec.origin).parent, package)
    (package / "results").mkdir(exist_ok=True)
    write(package / "results")
    work = tmp_path / "work"
    work.mkdir()
    program = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
        "from annotated import records\n"
        "assert records.repository() is None\n"
        "print(records.read_record('a-run')['metrics']['loss'])\n"
        "path = records.write_record('mine', kind='training', command='c',"
        " config={}, metrics={'x': 1})\n"
        "print(path.relative_to(records.Path.cwd()))\n"
        "print(records.read_record('mine')['commit'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=work, capture_output=True, text=True
    )
    assert run.stdout.split() == ["1.5", "results/mine.json", "unknown"], run.stderr


def test_tables(record: dict[str, Any]) -> None:
    table = markdown_table([record], {"run": "{name}", "loss": "{metrics[loss]:.2f}"})
    assert table == "| run | loss |\n| :--- | ---: |\n| a-run | 1.50 |"
    piped = markdown_table([record | {"name": "a|b"}], {"run": "{name}"})
    assert piped.endswith("| a\\|b |")


@pytest.mark.parametrize(
    "cell", ["{metrics[bleu]}", "{nothing}", "{name:.2f}", "{name", "{name.x}", "{}"]
)
def test_a_cell_that_cannot_be_filled(cell: str, record: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="record a-run: cannot fill"):
        markdown_table([record], {"x": cell})


def test_the_runs_on_a_corpus_from_low_to_high(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [("a", "en-fr", 30.0), ("b", "en-de", 41.0), ("c", "en-de", 36.25)]
    for name, pair, bleu in runs:  # the second of small letters
        scores = {"bleu_tok_lc": bleu, "bleu_cased": bleu - 1}
        sizes = {"parameters": 5e6, "updates": 100, "train_seconds": 90}
        config = {"pair": pair, "note": "A note.", "lowercase": name == "b"}
        name = f"{name}-text-{pair}"
        write(tmp_path, name, metrics=scores | sizes, config=config)
    files = {path.stem: path for path in tmp_path.iterdir()}
    monkeypatch.setattr(records, "record_files", lambda: files)
    table, made = (part.splitlines() for part in runs_table("text").split("\n\n"))
    assert [row.split(" | ")[0] for row in table[2:]] == [
        "| c-text-en-de", "| b-text-en-de", "| a-text-en-fr"
    ]  # fmt: skip
    assert table[2] == "| c-text-en-de | 36.2 | 35.2 | 5,000,000 | 100 | 2 |"
    assert table[3] == "| b-text-en-de | 41.0 | – | 5,000,000 | 100 | 2 |"
    assert made[0].startswith("- c-text-en-de: ") and made[0].endswith("A note.")
    assert runs_table("other") == "No run on other has been recorded yet."
