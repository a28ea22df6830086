"""A page's weight: nothing is loaded that the page does not show.

The theme is made for every site. Its style sheets have rules for parts that the book
lacks, and its fonts have thousands of icons. Once all pages are written, the sheets
become one, without what no page uses: a page is shown when its style is there, and on a
phone each further sheet takes longer to ask for than to send. Pictures wait until the
reader comes near.
"""

from __future__ import annotations

import hashlib
import html
import io
import itertools
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tinycss2
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from PIL import Image
from sphinx.application import Sphinx

from . import charts

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table
SHEET = "_static/styles/annotated.css"
LINKS = re.compile(r'<link\b[^>]*\brel="stylesheet"[^>]*>\s*')
ADDRESS = re.compile(r'\bhref="([^"?]+)')
PICTURE = re.compile(r'<img (?=[^>]*src="([^"]*_images/[^"]+\.png)")')
FONT = re.compile(r'url\("?([^)"]+)/([\w-]+)\.woff2"?\) ?format\("woff2"\).*?(?=[;}])')


def lazy_pictures(body: str, path_of: dict[str, Path]) -> str:
    """Let each picture wait, and say its size, so that the page keeps the room."""

    def measured(match: re.Match[str]) -> str:
        name = html.unescape(match[1]).rpartition("/")[2]
        width, height = charts.png_size(path_of[name].read_bytes())
        return f'<img loading="lazy" width="{width}" height="{height}" '

    return PICTURE.sub(measured, body)


def later(scripts: Iterable[Any]) -> list[Any]:
    """Let scripts run when the page is read, and not before it is shown.

    The options of the page must be there at once, because a line in the page adds to
    them. Other pages may want the same scripts at once, so these are copies.
    """
    found = []
    for script in scripts:
        name, attributes = str(script.filename or ""), dict(script.attributes)
        waits = {"defer", "async"} & set(attributes)
        if name and not waits and not name.endswith("documentation_options.js"):
            attributes["defer"] = "defer"
        kind = type(script)
        found.append(kind(script.filename, priority=script.priority, **attributes))
    return found


# Style sheets -----------------------------------------------------------------------


def words_in_use(folder: Path) -> set[str]:
    """Collect the classes of all pages, and every word in a script: it may be one."""
    words: set[str] = set()
    for page in folder.rglob("*.html"):
        if "_static" not in page.relative_to(folder).parts:
            for classes in re.findall(r'class="([^"]*)"', page.read_text("utf-8")):
                words.update(html.unescape(classes).split())
    for script in (folder / "_static").rglob("*.js"):
        if script.name != "fontawesome.js" and "mathjax" not in script.parts:
            words.update(re.findall(r"[\w-]+", script.read_text("utf-8")))
    return words


def can_match(selector: list[Any], words: set[str]) -> bool:
    """Tell whether all classes that a selector demands are in use.

    What stands in parentheses, as in ``:not(.a)`` and ``:is(.a, .b)``, demands nothing.
    """
    return all(
        name.value in words
        for dot, name in itertools.pairwise(selector)
        if dot == "." and name.type == "ident"
    )


def lean_rules(rules: list[Any], words: set[str]) -> str:
    """Write style rules without those that match nothing."""
    written = []
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors: list[list[Any]] = [[]]
            for token in rule.prelude:
                if token == ",":
                    selectors.append([])
                else:
                    selectors[-1].append(token)
            kept = [tinycss2.serialize(s) for s in selectors if can_match(s, words)]
            if kept:
                content = tinycss2.serialize(rule.content)
                written.append(f"{','.join(kept)}{{{content}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            inside = tinycss2.parse_rule_list(rule.content, True, True)
            content = lean_rules(inside, words)
            if content:
                prelude = tinycss2.serialize(rule.prelude)
                written.append(f"@{rule.at_keyword}{prelude}{{{content}}}")
        else:
            written.append(rule.serialize())
    return "".join(written)


def lean_sheet(text: str, words: set[str]) -> str:
    """Write a style sheet without the rules that match nothing."""
    return lean_rules(tinycss2.parse_stylesheet(text, True, True), words)


# Icons ------------------------------------------------------------------------------


def letters(text: str) -> set[int]:
    """Collect the letters in a style sheet's strings: an icon is one of them."""
    found: set[int] = set()
    for token in re.findall(r'"((?:[^"\\]|\\.)*)"', text):
        for code, letter in re.findall(r"\\([0-9a-fA-F]{1,6})|(.)", token):
            found.add(int(code, 16) if code else ord(letter))
    return found


def small_fonts(text: str, folder: Path) -> str:
    """Give the icon fonts of a sheet in ``folder`` only the letters that it names."""
    wanted = letters(text)

    def smaller(match: re.Match[str]) -> str:
        address, name = match[1], match[2]
        font = TTFont(folder / address / f"{name}.ttf", lazy=True)
        subsetter = Subsetter(Options(layout_features=[], notdef_outline=True))
        subsetter.populate(unicodes=wanted)
        subsetter.subset(font)
        font.flavor = "woff"
        font.save(folder / address / f"{name}.woff")
        return f'url({address}/{name}.woff) format("woff")'

    return FONT.sub(smaller, text)


# All together -----------------------------------------------------------------------


def whole_sheet(sheet: Path, folder: Path) -> str:
    """Read a sheet, and those it imports, with addresses as seen from ``folder``."""
    text = sheet.read_text(encoding="utf-8")

    def imported(match: re.Match[str]) -> str:
        return whole_sheet(sheet.parent / match[1], folder)

    def moved(match: re.Match[str]) -> str:
        if match[1].startswith(("data:", "#")):
            return match[0]
        return f"url({os.path.relpath(sheet.parent / match[1], folder)})"

    text = re.sub(r"url\(([^\"')]+)\)", moved, text)
    return re.sub(r'@import "([^"]+)";', imported, text)


def one_sheet(outdir: Path) -> None:
    """Join the style sheets of the pages into one that has what the pages show."""
    pages = {
        page: page.read_text(encoding="utf-8")
        for page in sorted(outdir.rglob("*.html"))
        if "_static" not in page.relative_to(outdir).parts
    }
    target = outdir / SHEET
    sheets: dict[Path, None] = {}  # in the order in which pages name them
    for page, text in pages.items():
        for link in LINKS.findall(text):
            sheets[Path(os.path.normpath(page.parent / ADDRESS.search(link)[1]))] = None
    sheets.pop(target, None)
    if not sheets:
        return  # no page was written this time
    whole = "".join(whole_sheet(sheet, target.parent) for sheet in sheets)
    lean = small_fonts(lean_sheet(whole, words_in_use(outdir)), target.parent)
    lean = f'@charset "utf-8";{lean}'  # icons are letters of their own
    target.write_text(lean, encoding="utf-8")
    mark = hashlib.sha256(lean.encode()).hexdigest()[:8]
    for page, text in pages.items():
        address = os.path.relpath(target, page.parent)
        link = f'<link rel="stylesheet" href="{address}?v={mark}" />\n'
        first = LINKS.search(text)
        if first:
            start = first.start()
            text = text[:start] + link + LINKS.sub("", text[start:])
            page.write_text(text, encoding="utf-8")


def pack(picture: Path) -> None:
    """Store a drawing with a palette: it has few colours, and a third of the bytes."""
    with Image.open(picture) as image:
        if image.mode == "P":
            return
        drawing = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    drawing.save(packed, "PNG", optimize=True)
    if len(packed.getvalue()) < picture.stat().st_size:
        picture.write_bytes(packed.getvalue())


def slim(app: Sphinx, error: Exception | None) -> None:
    """Take the weight out of a site that is written."""
    if error is not None or app.builder.name != "html":
        return
    outdir = Path(app.outdir)
    one_sheet(outdir)
    for picture in (outdir / "_images").glob("*.png"):
        pack(picture)


def setup(app: Sphinx) -> None:
    """Register the handler."""
    app.connect("build-finished", slim, priority=900)  # after the theme's own colours
