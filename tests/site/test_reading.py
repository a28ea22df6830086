"""Reading times: the counting on small pages, and the lines on those of the site."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from docutils import nodes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from annotated_site import reading  # noqa: E402

LINE = re.compile(r"(\d+ minutes?|[\d¼½¾]+ hours?) · (light|steady|steep)")


def section(title: str, *children: nodes.Node) -> nodes.section:
    """Make a section as a page has it."""
    return nodes.section("", nodes.title("", title), *children, ids=[title.lower()])


def words(number: int) -> nodes.paragraph:
    """Write so many words."""
    return nodes.paragraph("", "word " * number)


def code(lines: int, *tags: str, index: int = 0) -> nodes.container:
    """Show a cell with so many lines, and what it prints."""
    source = nodes.literal_block("", "x = 1\n\n" * lines)
    printed = nodes.container("", words(500), nb_element="cell_code_output")
    classes = ["cell", *(f"tag_{tag}" for tag in tags)]
    return nodes.container(
        "", source, printed, nb_element="cell_code", cell_index=index, classes=classes
    )


def cell(source: str, *tags: str) -> dict:
    """Make a notebook's cell."""
    return {"source": source.splitlines(keepends=True), "metadata": {"tags": [*tags]}}


CELLS = [
    cell("x = 1"),
    cell("import os\nLIMIT = 3\ndef clip(x): ...\nclass Box: ...", "export"),
    cell("def hidden(): ...", "export-private"),
]


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(reading).failed == 0


def test_words_formulas_and_lines_are_counted() -> None:
    """A title counts, empty lines do not, and a formula within a line is a word."""
    line = nodes.paragraph("", "", nodes.Text("so "), nodes.math("", "a + b"))
    page = section("Two words", words(10), line, nodes.math_block("", "a = b"), code(4))
    assert reading.count(page, CELLS) == reading.Reading(2 + 10 + 2, 4, 1)


@pytest.mark.parametrize("tag", ["hide-input", "hide-cell"])
def test_what_is_folded_away_is_not_counted(tag: str) -> None:
    assert reading.count(section("A", code(9, tag)), CELLS).lines == 0


@pytest.mark.parametrize("title", ["Exercises", "Exercise", "References"])
def test_exercises_and_references_are_not_counted(title: str) -> None:
    page = section("A", words(3), section(title, words(100)))
    assert reading.count(page, CELLS).words == 4


def test_public_names_are_counted_and_private_ones_not() -> None:
    page = section("A", *(code(1, index=index) for index in range(3)))
    assert reading.count(page, CELLS).names == 2 + 1


@pytest.mark.parametrize(
    ("counted", "level"),
    [
        (reading.Reading(words=238 * 8), "light"),
        (reading.Reading(words=238 * 8 + 1), "steady"),
        (reading.Reading(words=2000, formulas=2, names=2), "steady"),
        (reading.Reading(words=238, lines=40), "light"),
        (reading.Reading(words=238, lines=41), "steady"),
        (reading.Reading(words=1000, formulas=3), "steady"),
        (reading.Reading(words=1000, names=3), "steady"),
        (reading.Reading(words=1000, formulas=3, names=3), "steep"),
        (reading.Reading(lines=2000, formulas=9, names=9), "steep"),
    ],
)
def test_a_point_for_each_of_four_things(counted: reading.Reading, level: str) -> None:
    assert counted.level == level


def test_a_chapter_is_as_hard_as_half_of_its_minutes() -> None:
    light, steep = reading.Reading(words=500), reading.Reading(formulas=9, names=9)
    assert reading.overall([steep, light, light]) == "light"
    assert reading.overall([light, steep, steep]) == "steep"


def test_the_page_on_reading_states_the_rates_that_are_used() -> None:
    """``how-to-read.md`` and the program say the same."""
    page = (ROOT / "book" / "how-to-read.md").read_text(encoding="utf-8")
    text = " ".join(page.split())
    assert (reading.SECONDS_A_LINE, reading.SECONDS_A_FORMULA) == (3, 20)
    assert f"at {reading.WORDS_A_MINUTE} a minute" in text
    assert "line of code counts three seconds" in text
    assert "on a line of its own twenty" in text
    assert "*light*, with one *steady*, with more *steep*" in text


def test_each_chapter_and_section_says_its_minutes(site, page_name: str) -> None:
    """The line stands under the title, and the title itself is what it was."""
    file = site.html / f"{page_name}.html"
    article = BeautifulSoup(file.read_text("utf-8"), "html.parser").find("article")
    lines = article.select("p.reading")
    if not page_name.startswith("notebooks/"):
        assert not lines
        return
    titles = [
        title
        for title in article.find_all(["h1", "h2"])
        if title.find(string=True, recursive=False).casefold() not in reading.UNCOUNTED
    ]
    assert [line.find_previous_sibling() for line in lines] == titles
    assert all(LINE.fullmatch(line.get_text()) for line in lines)


def test_search_does_not_find_the_minutes(site) -> None:
    """What stands under each title would say nothing of any."""
    index = (site.html / "searchindex.js").read_text(encoding="utf-8")
    found = re.search(r'"?minut"?:(\[[^\]]*\]|\d+)', index)
    pages = len(site.pages)
    assert found is None or found[1].count(",") + 1 < pages / 2
