"""Pages that list things list all of them, and what they say of the book is so."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(\.\./notebooks/(\w+)\.ipynb(?:#([\w-]+))?\)")
PITFALL = re.compile(r"^> \*\*Pitfall", re.MULTILINE)
EXERCISE = re.compile(r"^> \*\*Exercise (\d+)", re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """Read the rows of a page's tables, headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-", ":"}]


# Pitfalls


@pytest.fixture
def pitfalls(pages) -> list[list[str]]:
    """The rows of the index of pitfalls."""
    found = rows(pages["book/pitfalls.md"])
    return [row for row in found if row[0] != "what one sees"]


def test_each_pitfall_of_a_notebook_is_in_the_index(notebooks, pitfalls) -> None:
    """Once, under the cell that explains it."""
    marked = [
        (name, cell["id"])
        for name, cells in notebooks.items()
        for cell in cells
        if cell["cell_type"] == "markdown" and PITFALL.search(cell["source"])
    ]
    indexed = [LINK.search(row[1]).groups() for row in pitfalls]
    assert sorted(indexed) == sorted(marked)


def test_each_pitfall_is_shown_by_a_cell_that_is_named(notebooks, pitfalls) -> None:
    """A cell of code, under its own name."""
    wrong = []
    for row in pitfalls:
        found = LINK.search(row[2])
        if found is None:
            assert row[2] == "not shown: it would run"
            continue
        code = {c["id"] for c in notebooks[found[1]] if c["cell_type"] == "code"}
        if found[2] not in code or f"`{found[2]}`" not in row[2]:
            wrong.append(row[2])
    assert not wrong


def test_the_numbers_are_those_of_the_bugs_on_purpose(pitfalls) -> None:
    """Each bug that is put into the package has a row, and no row has another."""
    tree = ast.parse((ROOT / "benchmarks" / "mutants.py").read_text(encoding="utf-8"))
    tried = {
        ast.literal_eval(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Mutant"
    }
    assert {int(row[3]) for row in pitfalls if row[3]} == tried


# The glossary


@pytest.fixture
def entries(pages) -> list[tuple[str, str]]:
    """The terms of the glossary and what is said of each."""
    text = (
        pages["book/glossary.md"].partition("```{glossary}\n")[2].rpartition("```")[0]
    )
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(term, " ".join(said.split())) for term, said in blocks]


def test_the_glossary_is_in_order(entries) -> None:
    terms = [term for term, _ in entries]
    assert terms == sorted(set(terms), key=str.casefold)
    assert len(terms) >= 100


def test_each_term_is_told_in_two_sentences_and_has_a_place(entries) -> None:
    wrong = []
    for term, said in entries:
        plain = re.sub(r"\]\([^)]*\)|\$[^$]*\$", "", said)
        sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z0-9])", plain)
        if len(sentences) > 2 or not said.endswith(".") or "](" not in said:
            wrong.append(term)
    assert not wrong, f"one or two sentences, and a link: {wrong}"


# The paths


def test_the_exercises_of_the_course_are_there(notebooks, pages) -> None:
    """``[1, 2 and 4](…#exercises)`` names exercises that the notebook has."""
    pattern = re.compile(
        r"\[(\d[\d, and to]*)\]\(\.\./notebooks/(\w+)\.ipynb#exercises\)"
    )
    named = pattern.findall(pages["book/paths.md"])
    assert len(named) >= 10
    for numbers, name in named:
        asked = {int(number) for number in re.findall(r"\d+", numbers)}
        there = {
            int(number)
            for cell in notebooks[name]
            for number in EXERCISE.findall(cell["source"])
        }
        assert asked <= there, f"{name} has exercises {sorted(there)}, not {numbers}"


def test_the_course_has_ten_weeks(pages) -> None:
    weeks = [row[0] for row in rows(pages["book/paths.md"]) if row[0].isdigit()]
    assert weeks == [str(week) for week in range(1, 11)]


# Projects


def test_each_project_says_what_the_reader_needs(pages) -> None:
    """How long it takes, where it begins, when it is done, what to compare with."""
    _, *projects = re.split(r"^## ", pages["book/projects.md"], flags=re.MULTILINE)
    assert 8 <= len(projects) <= 12
    for project in projects:
        title, _, text = project.partition("\n")
        assert re.match(r"\s*\*(?:An?|Two|Three) \w+", text), title
        assert "\nBegin " in text and LINK.search(text), title
        assert "It is done when" in text or "It is done with" in text, title
        assert re.search(r"\bCompare\b", text), title
        for record in re.findall(r"`(results/[\w-]+\.json)`", text):
            assert (ROOT / record).exists(), f"{title}: no {record}"


# How the book is made


def test_the_line_to_spoil_is_where_the_page_says(pages) -> None:
    """The commands work on a line of the package; the wrong number is that line's."""
    text = pages["book/how-made.md"]
    module = ROOT / "src" / "annotated" / "transformer.py"
    source = module.read_text(encoding="utf-8")
    found = re.search(r"src/annotated/transformer\.py:(\d+)", text)
    marker, definition = source.splitlines()[int(found[1]) - 2 : int(found[1])]
    assert marker == "# %% notebooks/04_transformer.ipynb#attend"
    assert definition == "def attend("
    (line,) = re.findall(r"^\+    (score = query .+)$", text, re.MULTILINE)
    assert source.count(line) == source.count(" / math.sqrt(query.shape[-1])") == 1
    assert f"tensor([[{4 * math.e / (1 + math.e):.4f}]])" in text


def test_the_count_of_caught_bugs_is_that_of_the_record(pages) -> None:
    record = json.loads((ROOT / "results" / "mutants.json").read_text(encoding="utf-8"))
    said = "{caught:.0f} of {total:.0f} caught".format(**record["metrics"])
    assert said in pages["book/how-made.md"]
