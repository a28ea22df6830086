"""The scoreboard: it says what the records say, all of it, and takes new ones."""

import doctest
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from annotated.data import DataError
from annotated.records import read_record, runs_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "results").glob("*.json"))
TINY = "transformer-tiny-multi30k-en-de"
Add = Callable[..., str]


@pytest.fixture(scope="module")
def scoreboard() -> ModuleType:
    """The program as a module."""
    path = ROOT / "scripts" / "scoreboard.py"
    spec = importlib.util.spec_from_file_location("scoreboard", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scoreboard"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(scoreboard: ModuleType) -> str:
    """The page as the records make it."""
    return str(scoreboard.outputs(ROOT / "results")[scoreboard.PAGE])


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book with the same records and no page."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    return tmp_path


@pytest.fixture
def add(scoreboard: ModuleType, book: Path) -> Add:
    """Write a record like another one, with changes; give the new page.

    A value that is changed to ``...`` is taken out.
    """

    def add(like: str, name: str, **changes: dict[str, Any]) -> str:
        record = read_record(ROOT / "results" / f"{like}.json") | {"name": name}
        for part, values in changes.items():
            changed = record[part] | values
            record[part] = {k: v for k, v in changed.items() if v is not ...}
        path = book / "results" / f"{name}.json"
        path.write_text(json.dumps(record), encoding="utf-8")
        return str(scoreboard.outputs(book / "results")[scoreboard.PAGE])

    return add


def row(page: str, name: str) -> list[str]:
    """The cells of the one row that links to a record."""
    (line,) = [x for x in page.splitlines() if f"/{name}.json)" in x and x[0] == "|"]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


# The page that is there


def test_the_page_is_current(
    scoreboard: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scoreboard.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_each_record_has_a_row_and_its_command(path: Path, page: str) -> None:
    record = read_record(path)
    name = record["name"]
    assert page.count(f"[record](../results/{name}.json), [how](#{name})") == 1
    section = page.partition(f"#### {name}\n")[2].partition("####")[0]
    (block,) = re.findall(r"```bash\n(.*?)\n```", section, re.DOTALL)
    *before, last = block.replace(" \\\n   ", "").splitlines()
    needed = record["config"].get("training_of_run", "none")  # of a model it asks for
    assert last == record["command"] and before == [needed] * (needed != "none")
    assert record["date"][:10] in section and record["commit"][:10] in section


def test_each_link_leads_somewhere(page: str) -> None:
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert len(slugs) == len(headings)
    links = re.findall(r"\]\((?!https://)([^)]*)\)", page)
    assert len(links) > 2 * len(RESULTS)
    for link in links:
        path, _, place = link.partition("#")
        assert (ROOT / "book" / path).exists(), link
        assert path or place in slugs, link


def test_scores_are_those_of_the_chapters(page: str) -> None:
    """Chapters 3 and 4 print this table; no figure of it may differ here."""
    lines = runs_table("multi30k").splitlines()
    runs = [line.strip("| ").split(" | ") for line in lines if "multi30k" in line]
    runs = [run for run in runs if len(run) == 6]
    assert len(runs) >= 14
    for name, bleu, cased, *rest in runs:
        cells = row(page, name)
        assert [cells[1], *cells[3:7]] == [bleu, cased, *rest]  # without Moses's


def test_a_model_of_small_letters_has_no_cased_score(page: str) -> None:
    names = [read_record(path) for path in RESULTS]
    small = [r["name"] for r in names if r["config"].get("lowercase")]
    assert small and all(row(page, name)[3] == "–" for name in small)
    assert row(page, TINY)[3] == "40.8"


def test_words_of_moses_are_scored_where_the_weights_were_kept(page: str) -> None:
    """The others have a dash, and the published score stands in this column."""
    for path in RESULTS:
        record = read_record(path)
        if "bleu_tok_lc" in record["metrics"] and record["kind"] == "training":
            score = record["metrics"].get("bleu_moses_lc")
            cell = row(page, record["name"])[2]
            assert cell == ("–" if score is None else f"{score:.1f}")
    assert "| – | 41.02 | – |" in page


def test_each_score_has_its_signature(page: str) -> None:
    for path in RESULTS:
        for signature in read_record(path)["config"].get("signatures", {}).values():
            assert f"`{signature}`" in page


def test_published_scores_have_sources(scoreboard: ModuleType, page: str) -> None:
    assert scoreboard.PUBLISHED
    for score in scoreboard.PUBLISHED:
        assert f"[{score.paper}]({score.address})" in page
        assert f"[source]({score.source})" in page
        assert re.match(r"https://.+/.+", score.source)


def beside(speed: str, ratio: str) -> str:
    """Two metrics of the Transformer's comparison as a cell."""
    metrics = read_record(ROOT / "results" / "transformer-benchmark.json")["metrics"]
    return f"{metrics[speed]:,.0f} ({metrics[ratio]:.2f}×)"


def trained(peer: str) -> str:
    """The cells of one that trained in both sizes."""
    return " | ".join(
        beside(f"train_tokens_per_second_{size}_{peer}", f"train_ratio_{peer}_{size}")
        for size in ("tiny", "d256")
    )


def test_speeds_stand_beside_their_ratio(page: str) -> None:
    assert f"| JoeyNMT 2.3.0 | {trained('joeynmt')} |" in page
    search = "greedy_b1_sentences_per_second_ctranslate2"
    found = beside(search, "greedy_b1_ratio_ctranslate2")
    assert f"| CTranslate2 4.8.5 | {found} |" in page


def test_the_picture_is_drawn_and_told(scoreboard: ModuleType) -> None:
    svg = scoreboard.outputs(ROOT / "results")[scoreboard.PICTURE]
    tree = ElementTree.fromstring(svg)
    spaces = "{http://www.w3.org/2000/svg}"
    widths = [r.get("width", "") for r in tree.iter(f"{spaces}rect")]
    shares = [float(width.rstrip("%")) for width in widths if width.endswith("%")]
    assert len(shares) > 10 and max(shares) == scoreboard.LONGEST
    told = tree.findtext(f"{spaces}desc") or ""
    assert "Bahdanau's attention: 36.3 German, 56.4 French" in told


# New records


def test_a_new_run_needs_nothing(add: Add) -> None:
    name = "transformer-tiny-multi30k-en-fr"
    recipe = read_record(ROOT / "results" / f"{TINY}.json")["config"]["recipe"]
    new = {"pair": "en-fr", "bpe_dropout": 0.1, "start": ...}
    page = add(TINY, name, config=new | {"recipe": recipe | {"r_drop": 3.0}})
    cells = row(page.partition("## English to French")[2], name)
    assert cells[0] == (
        "[Transformer `tiny`](../notebooks/04_transformer.ipynb), norm first, "
        "BPE-dropout 0.1, R-Drop 3"
    )
    assert "### multi30k" not in page


def test_a_modern_translator_is_of_chapter_5(add: Add) -> None:
    model = read_record(ROOT / "results" / f"{TINY}.json")["config"]["model"]
    modern = {"norm": "pre", "rms": True, "rope": 1e4, "positions": "none"}
    modern |= {"gate": "silu", "kv_heads": 2, "bias": False, "d_model": 130}
    changes = {"model": model | modern, "start": "first"}
    page = add(TINY, "modern-multi30k-en-de", config=changes)
    assert row(page, "modern-multi30k-en-de")[0] == (
        "[Transformer with 4 + 4 layers, 130 wide](../notebooks/05_modern.ipynb), "
        "norm first, RMSNorm, RoPE, SwiGLU, keys in 2 groups, no biases, "
        "BPE-dropout 0.1, continues `first`"
    )


def test_two_runs_of_one_name_are_told_apart(add: Add) -> None:
    page = add(TINY, "again-multi30k-en-de")
    assert row(page, "again-multi30k-en-de")[0].endswith("(`again-multi30k-en-de`)")
    assert row(page, TINY)[0].endswith(f"(`{TINY}`)")


def test_another_corpus_gets_a_table(add: Add) -> None:
    page = add(TINY, "transformer-wmt14-en-de", config={"data": "data/wmt14"})
    table = page.partition("### wmt14 en-de")[2].partition("\n## ")[0]
    assert row(table, "transformer-wmt14-en-de")[1] == "41.3"


def test_a_language_model_has_a_row(add: Add) -> None:
    config = {"preset": "lm-15m", "data": ["data/books"]}
    metrics = {"bits_per_byte": 1.9876, "perplexity": 33.333, "bleu_tok_lc": ...}
    page = add(TINY, "lm-15m-books", config=config, metrics=metrics)
    cells = row(page, "lm-15m-books")
    assert cells[:3] == ["`lm-15m` on books", "1.988", "33.3"]


def test_word_vectors_of_a_run_have_a_row(add: Add) -> None:
    metrics = {"words_per_second": 1234567.8, "wordsim353": 0.4567, "bleu_tok_lc": ...}
    page = add(TINY, "books-skip-gram-d100", metrics=metrics)
    cells = row(page, "books-skip-gram-d100")
    assert cells[:3] == ["`books-skip-gram-d100`", "1,234,568", "0.457"]


def test_a_gpu_fills_its_rows(add: Add, page: str) -> None:
    command = "python benchmarks/lm.py --mode utilisation --device cuda"
    assert f"| not yet run | `{command}` |" in page
    gpu = {"gpu": "NVIDIA H100 80GB HBM3"}
    metrics = {"tokens_per_second": 412_345.6, "mfu": 0.421}
    page = add("lm-benchmark", "lm-124m-cuda", hardware=gpu, metrics=metrics)
    assert row(page, "lm-124m-cuda")[1:] == [
        "412,346 tokens/s (42% of the peak)",
        "[record](../results/lm-124m-cuda.json), [how](#lm-124m-cuda), "
        "NVIDIA H100 80GB HBM3",
    ]
    base = {"train_tokens_per_second_base_ours": 9e5}
    base |= {"train_tokens_per_second_base_marian": 6e5, "train_ratio_marian_base": 1.5}
    like, name = "transformer-benchmark", "transformer-benchmark-cuda"
    page = add(like, name, hardware=gpu, metrics=base)
    marian = f"| Marian, transformers 5.23.0 | {trained('marian')} | 600,000 ("
    assert marian in page
    assert row(page, name)[1] == "see its table"


# What is wrong


def test_a_record_that_no_table_shows_is_an_error(
    scoreboard: ModuleType, book: Path, capsys: pytest.CaptureFixture[str], add: Add
) -> None:
    with pytest.raises(DataError, match="no table shows the record new-benchmark"):
        add("mutants", "new-benchmark")
    assert scoreboard.main([], book) == 1
    assert "scripts/scoreboard.py" in capsys.readouterr().err
    assert not (book / "book").exists()


def test_a_stale_page_is_named_with_what_mends_it(
    scoreboard: ModuleType, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scoreboard.main(["--check"], book) == 1
    said = capsys.readouterr().err
    assert "book/results.md:1: " in said and "scoreboard.svg:1: " in said
    assert scoreboard.main([], book) == scoreboard.main(["--check"], book) == 0
    assert len(list((book / "book").rglob("*.*"))) == 2
    page = book / scoreboard.PAGE
    page.write_text(page.read_text().replace("| 40.8 |", "| 49.8 |"), encoding="utf-8")
    assert scoreboard.main(["--check"], book) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"book/results\.md:\d+: is not what results/ say; run `make scoreboard` .*\n",
        said,
    )
    line = int(said.split(":")[1])
    assert "49.8" in page.read_text().splitlines()[line - 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read the record"),
        ("{}", "is a required property"),
        (None, f"record {TINY}: the scoreboard needs its 'pair'"),
    ],
)
def test_a_broken_record_is_one_clear_line(
    text: str | None,
    said: str,
    scoreboard: ModuleType,
    book: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = book / "results" / f"{TINY}.json"
    if text is None:
        text = path.read_text(encoding="utf-8").replace('"pair"', '"other"')
    path.write_text(text, encoding="utf-8")
    assert scoreboard.main([], book) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_marker_without_a_table_is_an_error(scoreboard: ModuleType) -> None:
    with pytest.raises(DataError, match="<!-- nothing: at all -->: known are transl"):
        scoreboard.page(scoreboard.Board({}), "<!-- nothing: at all -->")


def test_examples_in_the_docstrings(scoreboard: ModuleType) -> None:
    assert doctest.testmod(scoreboard).failed == 0
