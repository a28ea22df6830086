"""What the text says about our own runs is asserted by a cell near by.

What a cell prints is compared when the notebooks are tested, so a number that the text
repeats from there needs no other guard. Two kinds of number escape: those of outputs
that are *not* compared, because they differ between machines, and those that come from
a record and not from this run. So the rule has two halves. A section, that is what
stands under a heading of the second level, asserts something

- if one of its cells has an output that is not compared (the tag
  ``nbval-ignore-output``, or a picture without the data of a chart);
- if one of its cells reads a record, and a paragraph after it that cites no paper
  states a number with a decimal point: then the number is ours.

The rule can't know whether the assertion is about that number. It finds the section in
which somebody forgot it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
ASSERTS = re.compile(
    r"^\s*(?:assert |torch\.testing\.assert|agree\(|with pytest)", re.MULTILINE
)
READS = re.compile(r"\b(?:read_record|runs_table|recorded)\(")
OURS = re.compile(r"(?<![\w.])\d[\d,]*\.\d+")
SPOKEN_ELSEWHERE = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|^\|.*$", re.DOTALL | re.M)
# Section → why nothing has to be asserted there.
NO_CLAIM = {
    ("d_command_line", "One command"): "a help text, whose layout is the library's",
    ("j_translation", "Translating and evaluating"): "how fast a machine is; no claim",
}


@dataclass
class Section:
    """What a section has of outputs, records, numbers and assertions."""

    uncompared: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    asserts: bool = False

    @property
    def lacks(self) -> list[str]:
        """What nothing in the section guards."""
        return [] if self.asserts else [*self.uncompared, *self.numbers]


def sections(cells: list[dict[str, Any]]) -> dict[str, Section]:
    """Look at a notebook's sections one by one."""
    found: dict[str, Section] = {}
    title = ""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            # Text, title, text, title, text
            opening, *rest = HEADING.split(cell["source"])
            note_numbers(found.setdefault(title, Section()), opening)
            for title, text in zip(rest[::2], rest[1::2], strict=True):
                note_numbers(found.setdefault(title, Section()), text)
        elif cell["id"] != "setup":  # it installs the package
            note_cell(found.setdefault(title, Section()), cell)
    return found


def note_numbers(section: Section, text: str) -> None:
    """Collect the numbers of a text that stands behind a record."""
    if section.records:
        for paragraph in text.split("\n\n"):
            if "](http" not in paragraph:
                plain = SPOKEN_ELSEWHERE.sub("", paragraph)
                section.numbers += OURS.findall(plain)


def note_cell(section: Section, cell: dict[str, Any]) -> None:
    """Collect what a cell shows, reads and asserts."""
    kinds = [set(output.get("data", {})) for output in cell["outputs"]]
    drawn = any(
        "image/png" in kind and not any(name.endswith("+json") for name in kind)
        for kind in kinds
    )
    silent = "nbval-ignore-output" in cell["metadata"].get("tags", [])
    if drawn or (silent and cell["outputs"]):
        section.uncompared.append(cell["id"])
    if READS.search(cell["source"]):
        section.records.append(cell["id"])
    section.asserts |= bool(ASSERTS.search(cell["source"]))


def lacking(notebooks) -> dict[tuple[str, str], list[str]]:
    """Name the sections that state what nothing guards."""
    return {
        (name, title): section.lacks
        for name, cells in notebooks.items()
        for title, section in sections(cells).items()
        if section.lacks
    }


def test_what_a_section_claims_is_asserted_in_it(notebooks) -> None:
    """See the rule at the top of this file."""
    wrong = {place: what for place, what in lacking(notebooks).items()
             if place not in NO_CLAIM}  # fmt: skip
    assert not wrong, "add a cell that asserts what the text says: " + str(wrong)


def test_each_exception_is_still_one(notebooks) -> None:
    assert NO_CLAIM.keys() <= lacking(notebooks).keys()


def made(kind: str, source: str, *tags: str, **data: str) -> dict[str, Any]:
    """Make a cell."""
    outputs = [{"data": data}] if data or tags else []
    return {
        "cell_type": kind, "id": "a", "source": source, "outputs": outputs,
        "metadata": {"tags": list(tags)},
    }  # fmt: skip


def test_a_forgotten_assertion_is_noticed() -> None:
    """Each half of the rule, and what satisfies it."""
    silent = made("code", "train()", "nbval-ignore-output")
    record = made("code", "read_record('a')")
    ours = made("markdown", "It ends at 39.8 BLEU.")
    theirs = made("markdown", "[Wu 2021](https://a.b) report 41.02.")
    check = made("code", "assert bleu > 39")
    start = made("markdown", "## Run\n\n1.5 before any record says nothing.")
    elsewhere = made("markdown", "## Next")
    assert sections([start, silent])["Run"].lacks == ["a"]
    assert sections([start, silent, check])["Run"].lacks == []
    assert sections([start, silent, elsewhere, check])["Run"].lacks == ["a"]
    assert sections([start, record, ours])["Run"].lacks == ["39.8"]
    assert sections([start, record, theirs])["Run"].lacks == []
    assert sections([start, ours, record])["Run"].lacks == []
