"""How long a section takes to read, and how hard it is: counted, and shown.

Under the title of a chapter and of each of its sections stands a quiet line, such as
*6 minutes · steady*. It is counted from what the page shows, at the rates below. A page
without code can ask for the same numbers. ``{minutes}`02_seq2seq 03_attention#length```
adds up a chapter and a section, and ``03_attention#the-score..length`` all sections
from one to the other. The rule is told to the reader in ``book/how-to-read.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from . import notebooks

logger = logging.getLogger(__name__)

KEY = "reading"  # of a page's metadata: place → (number of the section, minutes)
WORDS_A_MINUTE = 238  # of English non-fiction, silently: Brysbaert 2019
SECONDS_A_LINE = 3.0  # of code
SECONDS_A_FORMULA = 20.0  # on lines of its own; within a line it counts as a word
LEVELS = ("light", "steady", "steep")
UNCOUNTED = {"exercise", "exercises", "references"}
EXPLAINED = ("book/how-to-read", "how-long-and-how-hard")
WORD = re.compile(r"\w\S*")


@dataclass(frozen=True)
class Reading:
    """What a reader meets in a section."""

    words: int = 0
    lines: int = 0
    formulas: int = 0
    names: int = 0

    def __add__(self, other: Reading) -> Reading:
        """Read one after the other."""
        return Reading(
            self.words + other.words,
            self.lines + other.lines,
            self.formulas + other.formulas,
            self.names + other.names,
        )

    @property
    def slow(self) -> float:
        """Minutes for code and formulas."""
        return (self.lines * SECONDS_A_LINE + self.formulas * SECONDS_A_FORMULA) / 60

    @property
    def minutes(self) -> float:
        """Minutes for all of it.

        >>> Reading(words=476, lines=20, formulas=3).minutes
        4.0
        """
        return self.words / WORDS_A_MINUTE + self.slow

    @property
    def points(self) -> int:
        """Count what makes a section hard, of four things."""
        return sum(
            (
                self.slow > 2 / 3 * self.minutes,
                self.formulas >= 3,
                self.names >= 3,
                self.minutes > 8,
            )
        )

    @property
    def level(self) -> str:
        """Name the level: no point, one, or more.

        >>> Reading(words=500).level, Reading(words=500, formulas=3).level
        ('light', 'steady')
        """
        return LEVELS[min(self.points, 2)]


def count(node: nodes.Element, cells: list[dict[str, Any]]) -> Reading:
    """Count what the page shows of a section, its subsections included.

    What a cell prints is looked at and not read, so it does not count; nor does a cell
    whose code is folded away.
    """
    reading = Reading()
    for child in node.children:
        if isinstance(child, nodes.Text):
            reading += Reading(words=len(WORD.findall(child.astext())))
        elif isinstance(child, nodes.math):
            reading += Reading(words=1)
        elif isinstance(child, nodes.math_block):
            reading += Reading(formulas=1)
        elif isinstance(child, nodes.literal_block):
            lines = [line for line in child.astext().splitlines() if line.strip()]
            reading += Reading(lines=len(lines))
        elif isinstance(child, nodes.Element) and is_shown(child):
            reading += names_in(child, cells) + count(child, cells)
    return reading


def is_shown(node: nodes.Element) -> bool:
    """Tell whether a reader of the page reads this."""
    folded = {"tag_hide-input", "tag_hide-cell"} & set(node["classes"])
    output = node.get("nb_element") == "cell_code_output"
    left = isinstance(node, nodes.raw) or (
        isinstance(node, nodes.section) and is_uncounted(node)
    )
    return not (folded or output or left)


def is_uncounted(section: nodes.section) -> bool:
    """Tell whether a section is left out: its time is the reader's, or is none."""
    return section[0].astext().casefold() in UNCOUNTED


def names_in(node: nodes.Element, cells: list[dict[str, Any]]) -> Reading:
    """Count the public names that a cell gives to the package."""
    if node.get("nb_element") != "cell_code":
        return Reading()
    cell = cells[node["cell_index"]]
    if "export" not in cell["metadata"].get("tags", []):
        return Reading()
    return Reading(names=len(notebooks.names_of(cell)))


def overall(sections: Iterable[Reading]) -> str:
    """Name a chapter's level: the one at which half of its minutes are spent or passed.

    >>> overall([Reading(words=900), Reading(words=500, formulas=3)])
    'light'
    """
    ranked = sorted(sections, key=lambda reading: LEVELS.index(reading.level))
    half = sum(reading.minutes for reading in ranked) / 2
    spent = 0.0
    for reading in ranked:
        spent += reading.minutes
        if spent >= half:
            return reading.level
    return LEVELS[0]


def spoken(minutes: float) -> str:
    """Say a time: minutes up to an hour, then hours and quarters.

    >>> spoken(0.2), spoken(7.4), spoken(62), spoken(190)
    ('1 minute', '7 minutes', '1 hour', '3¼ hours')
    """
    if minutes < 57.5:
        whole = max(1, round(minutes))
        return "1 minute" if whole == 1 else f"{whole} minutes"
    hours, quarters = divmod(round(minutes / 15), 4)
    number = f"{hours}{('', '¼', '½', '¾')[quarters]}"
    return "1 hour" if number == "1" else f"{number} hours"


# On the page


class reading_line(nodes.General, nodes.Element):  # noqa: N801  # as docutils names
    """The quiet line under a title.

    It has no text of its own, so that neither search nor a page's description find any.
    """


def show(translator: Any, node: reading_line) -> None:
    """Write the line as HTML."""
    said = f"{spoken(node['minutes'])} · {node['level']}"
    if isinstance(node.parent.parent, nodes.document):  # the chapter's own
        here, (page, place) = translator.builder.current_docname, EXPLAINED
        address = f"{translator.builder.get_relative_uri(here, page)}#{place}"
        said = f'<a href="{address}">{said}</a>'
    translator.body.append(f'<p class="reading">{said}</p>\n')
    raise nodes.SkipNode


def leave_out(translator: Any, node: reading_line) -> None:
    """Write nothing in formats for which the line was not made."""
    raise nodes.SkipNode


class Lines(SphinxTransform):
    """Put a line under the title of a chapter, and of each of its sections."""

    default_priority = 420  # after the cells have their places

    def apply(self) -> None:
        """Count, note for other pages, and show."""
        notebook = self.env.temp_data.get(notebooks.KEY)
        chapter = next(self.document.findall(nodes.section), None)
        if notebook is None or chapter is None:
            return
        sections = {
            section: count(section, notebook["cells"])
            for section in chapter.children
            if isinstance(section, nodes.section) and not is_uncounted(section)
        }
        whole = count(chapter, notebook["cells"])
        inside = sum(sections.values(), Reading())
        opening = Reading(words=whole.words - inside.words)
        insert(chapter, whole.minutes, overall([opening, *sections.values()]))
        noted = {"": (0, whole.minutes)}
        for number, (section, reading) in enumerate(sections.items(), start=1):
            insert(section, reading.minutes, reading.level)
            noted |= dict.fromkeys(places(section), (number, reading.minutes))
        self.env.metadata[self.env.docname][KEY] = noted


def places(section: nodes.section) -> Iterator[str]:
    """Give the names under which links lead to a section."""
    yield from section["ids"]
    if "slug" in section:
        yield section["slug"]


def insert(section: nodes.section, minutes: float, level: str) -> None:
    """Put the line behind the title."""
    section.insert(1, reading_line("", minutes=minutes, level=level))


# On other pages


class minutes_of(nodes.Inline, nodes.Element):  # noqa: N801
    """A time that is filled in when all pages have been read."""


class Minutes(SphinxRole):
    """``{minutes}`02_seq2seq 04_transformer#a-soft-dictionary```: their sum."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Leave a place for the time."""
        node = minutes_of("", targets=self.text.split())
        self.set_source_info(node)
        return [node], []


def fill_in(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the times where a page has asked for them."""
    for node in list(doctree.findall(minutes_of)):
        total = 0.0
        for target in node["targets"]:
            name, _, place = target.partition("#")
            noted = app.env.metadata.get(f"notebooks/{name}", {}).get(KEY, {})
            try:
                total += minutes_at(noted, place)
            except KeyError as missing:
                logger.warning(
                    "no reading time for %r (%s is unknown): give a notebook's name, "
                    "and anchors of its sections",
                    target,
                    missing,
                    location=node,
                )
        node.replace_self(nodes.Text(spoken(total)))


def minutes_at(noted: dict[str, tuple[int, float]], place: str) -> float:
    """Look up the time of a chapter, a section, or all from one section to another.

    >>> noted = {"": (0, 9.0), "a": (1, 2.0), "b": (2, 3.0), "c": (3, 4.0)}
    >>> minutes_at(noted, ""), minutes_at(noted, "b"), minutes_at(noted, "b..c")
    (9.0, 3.0, 7.0)
    """
    first, _, last = place.partition("..")
    begin, end = noted[first][0], noted[last or first][0]
    return sum(time for number, time in set(noted.values()) if begin <= number <= end)


def setup(app: Sphinx) -> None:
    """Register the line and the role."""
    silent = (leave_out, None)
    app.add_node(
        reading_line, html=(show, None), latex=silent, text=silent, gettext=silent
    )
    app.add_transform(Lines)
    app.add_role("minutes", Minutes())
    app.connect("doctree-resolved", fill_in)
