"""Each word of the book is in the dictionary, or in ``book/spelling.txt``.

The dictionary is pyspellchecker's English one. What it lacks, terms of the field,
British forms and words of other languages, stands in the list, one a line; a word in it
that the book does not use, or that the dictionary knows, has to go. Code, mathematics
and addresses are left out. So are names: words with a capital inside, and those that
have a capital in the middle of a sentence somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from spellchecker import SpellChecker

LIST = Path(__file__).resolve().parents[2] / "book" / "spelling.txt"
NO_PROSE = re.compile(
    r"""
      ^(```|~~~)(?!\{glossary\}).*?^\1\s*$  # code and directives
    | \$\$.+?\$\$ | \$[^$]+?\$              # mathematics
    | \{\w+\}`[^`]*` | ``.+?`` | `[^`]*`    # roles and code
    | \[[^\[\]]*\b(?:18|19|20)\d\d[a-z]?\]    # the names in a citation
    | \]\([^)]*\)                           # where a link leads
    | https?://\S+ | <[^>]+> | &\w+;        # addresses and HTML
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
NOT_LATIN = re.compile(r"[^\u0000-\u024f’]")  # a sign of Chinese, a Greek letter
BEGINS = re.compile(r"(?:^|[.?!:…|]|\n\n|\n\s*[>#*\-]+)[\s\"“(\[*]*$")

Words = list[tuple[str, str, bool]]


def words(text: str) -> Iterator[tuple[str, bool]]:
    """Give each word of a text, and whether it begins a sentence."""
    text = NO_PROSE.sub(" . ", text)
    for match in WORD.finditer(text):
        word = match.group().replace("’", "'")
        if not NOT_LATIN.search(word):
            before = text[max(0, match.start() - 40) : match.start()]
            yield word.removesuffix("'s"), bool(BEGINS.search(before))


@pytest.fixture(scope="module")
def book(notebooks, pages) -> Words:
    """Every word of the book, where it stands, and whether it begins a sentence."""
    texts = [(page, text) for page, text in pages.items()]
    texts += [
        (f"notebooks/{name}.ipynb#{cell['id']}", cell["source"])
        for name, cells in notebooks.items()
        for cell in cells
        if cell["cell_type"] == "markdown"
    ]
    return [(place, *found) for place, text in texts for found in words(text)]


@pytest.fixture(scope="module")
def unknown(book: Words) -> dict[str, str]:
    """The words that the dictionary lacks, names left out, each with a place."""
    english = SpellChecker(language="en")
    names = {word for _, word, begins in book if not begins and word[0].isupper()}
    return {
        word.lower(): place
        for place, word, _ in book
        if not any(letter.isupper() for letter in word[1:])
        and word not in names
        and word.lower() not in english
    }


def listed() -> list[str]:
    """Read the list."""
    return LIST.read_text(encoding="utf-8").split()


def test_code_mathematics_names_and_addresses_are_left_out() -> None:
    assert list(words("See $x$ in `code`. [Luong 2015](https://a.b) *saw* it.")) == [
        ("See", True), ("in", True), ("saw", True), ("it", False)
    ]  # fmt: skip


def test_each_word_is_spelled_right(unknown: dict[str, str]) -> None:
    wrong = sorted(unknown.keys() - set(listed()))
    said = "\n".join(f"{unknown[word]}: {word}" for word in wrong)
    assert not wrong, f"mend it, or add it to book/spelling.txt:\n{said}"


def test_each_word_of_the_list_is_needed(unknown: dict[str, str]) -> None:
    idle = [word for word in listed() if word not in unknown]
    assert not idle, f"book/spelling.txt: not used, or known anyway: {idle}"


def test_the_list_is_in_order() -> None:
    assert listed() == sorted(set(listed())), "sort book/spelling.txt: LC_ALL=C sort -u"


@pytest.mark.parametrize("typo", ["lenght", "gradiant", "attentoin", "tranformer"])
def test_a_misspelled_word_is_noticed(typo: str) -> None:
    assert typo not in SpellChecker(language="en")
    assert typo not in listed()
    assert [word for word, _ in words(f"The {typo}, *{typo}*")].count(typo) == 2
