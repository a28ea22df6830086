"""Print the whole book into one PDF: ``_build/html/annotated.pdf``.

Each page of the site is printed by Chromium once its mathematics and charts are drawn.
The prints are joined in the book's order, behind a cover and a table of contents; links
between pages lead to their place in the file, headings become bookmarks, and each sheet
has its number.
"""

from __future__ import annotations

import argparse
import functools
import html
import io
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    Fit,
    NameObject,
    NullObject,
    NumberObject,
    TextStringObject,
)

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # milliseconds for a page, on a machine that has other work
PAPER = {"format": "A4", "print_background": True, "prefer_css_page_size": True}
WHOLE = {"outline": True, "tagged": True}
# Formulas are set, their letters are there, and pictures no longer wait for a reader.
# A browser asks for letters when it first shows them, which would be too late.
AT_REST = """async () => {
  await window.MathJax?.startup.promise;
  await Promise.all([...document.fonts].map(font => font.load()));
  for (const image of document.images) image.loading = "eager";
  const shown = [...document.images].filter(image => image.offsetParent);
  await Promise.all(shown.map(image => image.decode()));
}"""
# A place gets a name in the print where a link of the same page leads to it.
NAME = """anchors => {
  const links = anchors.map(anchor => Object.assign(
    document.createElement("a"), {href: "#" + anchor}));
  const box = document.createElement("div");
  box.hidden = true;
  box.append(...links);
  document.body.append(box);
}"""
LINK = re.compile(r'<a\b[^>]* href="([^":#]+)#([^"]+)"')
STYLE = """<style>
  @page { size: A4; margin: 25mm 22mm; }
  body { font: 12pt/1.6 "DejaVu Serif", serif; color: #12202e; margin: 0; }
  a { color: inherit; text-decoration: none; }
  h1 { font-size: 34pt; line-height: 1.2; margin: 70mm 0 10mm; }
  .part { font-weight: bold; margin: 1.2em 0 0.2em; }
  .line { display: flex; justify-content: space-between; gap: 1em; }
  .contents { break-before: page; }
  .contents h2 { font-size: 20pt; }
</style>"""
NUMBERS = """<style>
  @page { size: A4; margin: 0; }
  body { margin: 0; font: 8.5pt "DejaVu Sans", sans-serif; color: #52606d; }
  div { height: 297mm; padding-top: 284mm; text-align: center; box-sizing: border-box;
        break-after: page; overflow: hidden; }
  div:last-child { break-after: auto; }
</style>"""


@dataclass
class Chapter:
    """A page of the site: where it is, what it is called, and its print."""

    name: str
    part: str
    title: str = ""
    sheets: PdfReader | None = None
    home: str = ""  # the address of the published site
    first: int = 0  # its first sheet in the whole, from zero
    anchors: set[str] = field(default_factory=set)  # where other chapters lead to

    @property
    def length(self) -> int:
        """How many sheets it has."""
        return len(self.sheets.pages) if self.sheets else 0

    def find(self, anchor: str) -> tuple[int, float | None]:
        """Give the sheet of the whole and the height where a place is, or its start."""
        goal = self.sheets.named_destinations.get(f"/{anchor}")
        if goal is None:
            return self.first, None
        return self.first + self.sheets.get_destination_page_number(goal), goal.top


def chapters() -> list[Chapter]:
    """Read the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [Chapter(toc["root"], "")]
    for part in toc["parts"]:
        found += [Chapter(entry["file"], part["caption"]) for entry in part["chapters"]]
    return found


def collect_anchors(book: list[Chapter], site: Path) -> None:
    """Note of each chapter the places that links of the others lead to."""
    named = {f"{chapter.name}.html": chapter for chapter in book}
    for name in named:
        text = (site / name).read_text(encoding="utf-8")
        for address, anchor in LINK.findall(text):
            if chapter := named.get(urljoin(name, address)):
                chapter.anchors.add(unquote(anchor))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args: object) -> None:
        """Say nothing of a request."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; give its address, which ends in a slash."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit("no Chromium found: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


# Printing ---------------------------------------------------------------------------


def print_page(page: Page, address: str, chapter: Chapter) -> None:
    """Open a page of the site, wait for all that is drawn in it, and print it."""
    page.goto(f"{address}{chapter.name}.html")
    page.evaluate(AT_REST)
    for chart in page.query_selector_all(".annotated-chart"):
        chart.scroll_into_view_if_needed()
        page.wait_for_function("chart => 'drawn' in chart.dataset", arg=chart)
    page.evaluate(NAME, sorted(chapter.anchors))
    canonical = page.get_attribute("link[rel=canonical]", "href")
    chapter.home = canonical.removesuffix(f"{chapter.name}.html")
    chapter.title = page.title().partition(" — ")[0]
    chapter.sheets = PdfReader(io.BytesIO(page.pdf(**PAPER, **WHOLE)))


def print_text(page: Page, text: str) -> PdfReader:
    """Print a page that is written here."""
    page.set_content(text)
    return PdfReader(io.BytesIO(page.pdf(**PAPER)))


def front(book: list[Chapter], title: str, author: str, address: str) -> str:
    """Write cover and contents, with the numbers that are known so far."""
    name, _, rest = title.partition(": ")
    lines, part = [], ""
    for chapter in book:
        if chapter.part != part:
            part = chapter.part
            lines.append(f'<div class="part">{html.escape(part)}</div>')
        lines.append(
            f'<a class="line" href="{address}{chapter.name}.html">'
            f"<span>{html.escape(chapter.title)}</span>"
            f"<span>{chapter.first + 1}</span></a>"
        )
    return (
        f"<!doctype html>{STYLE}<h1>{html.escape(name)}</h1>"
        f"<p>{html.escape(rest[:1].upper() + rest[1:])}</p><p>{html.escape(author)}</p>"
        f'<div class="contents"><h2>Contents</h2>{"".join(lines)}</div>'
    )


# Joining ----------------------------------------------------------------------------


def place(sheet: PageObject, top: float | None = None) -> ArrayObject:
    """Name a place in the file, so that a link can lead to it."""
    height = NullObject() if top is None else NumberObject(round(top))
    where = [NameObject("/XYZ"), NullObject(), height, NullObject()]
    return ArrayObject([sheet.indirect_reference, *where])


def mend_links(
    writer: PdfWriter, chapter: Chapter, book: list[Chapter], address: str
) -> None:
    """Let a chapter's links lead to sheets of the whole.

    Chromium names a place by its anchor, and two chapters may have the same; a link to
    another page of the site it takes for one that leaves the file.
    """
    starts = {f"{address}{each.name}.html": each for each in book}
    names = chapter.sheets.named_destinations
    for number in range(chapter.length):
        for reference in writer.pages[chapter.first + number].get("/Annots", ()):
            link = reference.get_object()
            action = link.get("/A", {})
            target, top = None, None
            name = link.get("/Dest", action.get("/D"))
            uri = str(action.get("/URI", ""))
            start, anchor = urldefrag(uri)
            if isinstance(name, str) and name in names:
                target, top = chapter.find(name.removeprefix("/"))
            elif start in starts:
                target, top = starts[start].find(unquote(anchor))
            elif uri.startswith(address):
                outside = uri.replace(address, chapter.home, 1)
                action[NameObject("/URI")] = TextStringObject(outside)
            if target is not None:
                link.pop("/A", None)
                link[NameObject("/Dest")] = place(writer.pages[target], top)


def add_bookmarks(
    writer: PdfWriter, chapter: Chapter, outline: list[Any], parent: Any
) -> None:
    """Add a chapter's headings below its title."""
    last = parent
    for item in outline:
        if isinstance(item, list):
            add_bookmarks(writer, chapter, item, last)
        else:
            sheet = chapter.sheets.get_destination_page_number(item)
            last = writer.add_outline_item(
                title=item.title,
                page_number=chapter.first + sheet,
                parent=parent,
                fit=Fit.xyz(top=item.top),
            )


def join(book: list[Chapter], page: Page, title: str, author: str, address: str) -> Any:
    """Put cover, contents and chapters together."""
    opening = Chapter("", "", "Contents")
    opening.sheets = print_text(page, front(book, title, author, address))
    first = opening.length
    for chapter in book:
        chapter.first = first
        first += chapter.length
    opening.sheets = print_text(page, front(book, title, author, address))

    writer = PdfWriter()
    for chapter in (opening, *book):
        writer.append(chapter.sheets, import_outline=False)
    bookmark = writer.add_outline_item
    part, parent = "", None
    for chapter in (opening, *book):
        mend_links(writer, chapter, book, address)
        if chapter.part != part:
            part = chapter.part
            parent = bookmark(title=part, page_number=chapter.first)
        own = bookmark(title=chapter.title, page_number=chapter.first, parent=parent)
        outline = chapter.sheets.outline
        inside = [item for item in outline if isinstance(item, list)]
        add_bookmarks(writer, chapter, sum(inside, []), own)
    count = len(writer.pages)
    boxes = "".join(f"<div>{number}</div>" for number in range(1, count + 1))
    numbers = print_text(page, f"<!doctype html>{NUMBERS}{boxes}")
    for sheet, number in list(zip(writer.pages, numbers.pages, strict=True))[1:]:
        sheet.merge_page(number)
        sheet.compress_content_streams()  # the merged ones are not
    writer.compress_identical_objects()
    writer.add_metadata({"/Title": title, "/Author": author})
    return writer


def main(arguments: list[str] | None = None) -> None:
    """Print the book, or the pages that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="notebooks/01_word2vec; all, if none")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    book = [c for c in chapters() if not options.pages or c.name in options.pages]
    missing = set(options.pages) - {chapter.name for chapter in book}
    if missing:
        sys.exit(f"not in _toc.yml: {', '.join(sorted(missing))}")
    out = options.out or options.site / "annotated.pdf"
    collect_anchors(book, options.site)
    with served(options.site) as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 900, "height": 1200})
        page.set_default_timeout(PATIENCE)
        for chapter in book:
            print_page(page, address, chapter)
            print(f"{chapter.length:4} pages  {chapter.title}", flush=True)
        whole = join(book, page, config["title"], config["author"], address)
    whole.write(out)
    size = out.stat().st_size / 1e6
    print(f"{len(whole.pages):4} pages, {size:.1f} MB: {out}")


if __name__ == "__main__":
    main()
