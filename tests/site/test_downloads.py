"""The book as a file: a PDF and an EPUB that open, with formulas and charts inside.

The PDF is made of a few pages here; of all, when the book is published.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest
import yaml
from playwright.sync_api import Browser
from pypdf import PdfReader

ROOT = Path(__file__).parents[2]
PRINTED = ("book/index", "book/how-to-read", "book/notation", "book/glossary")
BOUND = ("book/notation", "notebooks/h_subwords")  # the first page is always there
MATH = "{http://www.w3.org/1998/Math/MathML}math"
SVG = "{http://www.w3.org/2000/svg}svg"
HTML = "{http://www.w3.org/1999/xhtml}"
OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"
IMAGE = f"{HTML}img"


@pytest.fixture(scope="module")
def pdf(site, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    """Print some pages as a book; the browser is asked for so that one is there."""
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    command = [sys.executable, ROOT / "scripts" / "pdf.py", *PRINTED]
    subprocess.run([*command, "--site", site.html, "--out", out], check=True)
    return PdfReader(out)


def test_pdf_has_cover_contents_and_numbered_pages(pdf: PdfReader) -> None:
    """Contents name the page where a chapter begins; each page has its number."""
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    assert pdf.metadata.title == title
    texts = [sheet.extract_text() for sheet in pdf.pages]
    assert len(texts) > 8
    assert title.partition(":")[0] in texts[0]
    for number, text in list(enumerate(texts, 1))[1:]:
        assert text.rstrip().endswith(str(number))
    place = re.search(r"Notation\s*(\d+)", texts[1])
    assert "Notation" in texts[int(place[1]) - 1][:200]


def test_pdf_has_formulas_charts_and_all_code(pdf: PdfReader) -> None:
    """MathJax's letters, the words of a chart, and nothing of the screen's buttons."""
    fonts = {
        str(font.get_object()["/FontDescriptor"]["/FontName"])
        for sheet in pdf.pages
        for font in sheet["/Resources"].get("/Font", {}).values()
        if "/FontDescriptor" in font.get_object()
    }
    assert any("MathJax_Math" in name for name in fonts), fonts
    text = " ".join(" ".join(sheet.extract_text() for sheet in pdf.pages).split())
    assert "king" in text and "52%" in text  # the first chart
    assert "make book # build this site" in text
    assert "Search" not in text and "Back to top" not in text


def test_pdf_leads_around_in_itself(pdf: PdfReader) -> None:
    """Links between pages stay in the file, the others leave for the web."""
    inside, outside = 0, []
    for sheet in pdf.pages:
        for reference in sheet.get("/Annots", ()):
            link = reference.get_object()
            inside += "/Dest" in link
            outside.append(str(link.get("/A", {}).get("/URI", "https:")))
    assert inside >= 5
    assert all(address.startswith("https:") for address in outside), outside
    titles = [item.title for item in pdf.outline if not isinstance(item, list)]
    assert titles == ["Contents", "Annotated", "Before you start", "Reference"]
    chapters = pdf.outline[-3]
    assert [item.title for item in chapters if not isinstance(item, list)] == [
        "How to read this book",
        "Notation",
    ]
    assert isinstance(chapters[-1], list) and len(chapters[-1]) >= 2


def headings(outline: list[Any]) -> Iterator[Any]:
    """Give all bookmarks, those inside others too."""
    for item in outline:
        yield from headings(item) if isinstance(item, list) else [item]


def test_pdf_link_to_a_section_leads_to_the_section(pdf: PdfReader) -> None:
    """Not to its chapter's first page; and no link is left that leads to a name."""
    numbers = {s.indirect_reference.idnum: n for n, s in enumerate(pdf.pages)}
    places = set()
    for sheet in pdf.pages:
        for reference in sheet.get("/Annots", ()):
            link = reference.get_object()
            assert "/D" not in link.get("/A", {})
            if "/Dest" in link:
                page, _, _, top, _ = link["/Dest"]
                places.add((numbers[page.idnum], top))
    (units,) = [item for item in headings(pdf.outline) if item.title == "Units"]
    sheet = pdf.get_destination_page_number(units)
    (notation,) = [item for item in headings(pdf.outline) if item.title == "Notation"]
    assert sheet > pdf.get_destination_page_number(notation)
    tops = [top for page, top in places if page == sheet]
    assert any(units.top <= top <= units.top + 72 for top in tops), (tops, units.top)


@pytest.fixture(scope="module")
def epub(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Bind some pages as an EPUB."""
    out = tmp_path_factory.mktemp("epub") / "book.epub"
    command = [sys.executable, ROOT / "scripts" / "epub.py", *BOUND, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with ZipFile(out) as book:
        yield book


def test_epub_opens(epub: ZipFile) -> None:
    """It is what the format asks for: its kind first, and all that it lists."""
    assert epub.testzip() is None
    assert epub.namelist()[0] == "mimetype"
    assert epub.read("mimetype") == b"application/epub+zip"
    package = ElementTree.fromstring(epub.read("content.opf"))
    listed = {item.get("href") for item in package.iter(f"{OPF}item")}
    assert listed <= set(epub.namelist())
    assert {f"{page}.xhtml" for page in ("book/index", *BOUND)} <= listed
    assert not [name for name in epub.namelist() if name.endswith((".js", ".woff"))]


def test_epub_is_read_in_order(epub: ZipFile) -> None:
    """All pages are in the reading order, and both contents lead to their sections."""
    pages = ["book/index.xhtml", *(f"{page}.xhtml" for page in BOUND)]
    package = ElementTree.fromstring(epub.read("content.opf"))
    items = {item.get("id"): item.get("href") for item in package.iter(f"{OPF}item")}
    order = [
        items[entry.get("idref")]  # each is in the list
        for entry in package.iter(f"{OPF}itemref")
        if entry.get("linear") != "no"
    ]
    assert order == [*pages, "genindex.xhtml"]
    contents = ElementTree.fromstring(epub.read("nav.xhtml"))
    leads = [a.get("href", "") for a in contents.iter(f"{HTML}a")]
    assert list(dict.fromkeys(lead.partition("#")[0] for lead in leads)) == pages
    for page in pages:
        ids = re.findall(r'<section id="([^"]*)"', epub.read(page).decode())
        within = [lead.partition("#")[2] for lead in leads if lead.startswith(page)]
        assert within[0] == "" and set(within[1:]) <= set(ids)
        assert len(within) > 3 or not page.startswith("notebooks/")
    older = epub.read("toc.ncx").decode()
    assert set(re.findall(r'<content src="([^"]*)"', older)) == set(leads)
    name = package.find(f".//{DC}identifier").text
    assert f'<meta name="dtb:uid" content="{name}"/>' in older


def test_epub_is_what_epubcheck_asks_for(epub: ZipFile) -> None:
    """What a page needs is declared and inside; a fold's line is no paragraph."""
    package = ElementTree.fromstring(epub.read("content.opf"))
    for item in package.iter(f"{OPF}item"):
        name, kinds = item.get("href"), item.get("properties", "").split()
        if not name.endswith(".xhtml") or "nav" in kinds:
            continue
        page = ElementTree.fromstring(epub.read(name))
        assert ("mathml" in kinds) == any(page.iter(MATH)), name
        assert ("svg" in kinds) == any(page.iter(SVG)), name
        sheets = [link.get("href") for link in page.iter(f"{HTML}link")]
        files = {normpath(join(dirname(name), s)) for s in sheets if s.endswith(".css")}
        assert files and files <= set(epub.namelist()), name
        for line in page.iter(f"{HTML}summary"):
            assert not list(line) and line.text.startswith("Show"), name


def test_epub_has_formulas_and_charts(epub: ZipFile) -> None:
    """Formulas are MathML and charts are pictures; each picture is inside."""
    formulas, pictures = 0, []
    for name in (f"{page}.xhtml" for page in ("book/index", *BOUND)):
        page = ElementTree.fromstring(epub.read(name))
        formulas += len(list(page.iter(MATH)))
        pictures += [
            normpath(join(dirname(name), image.get("src")))
            for image in page.iter(IMAGE)
        ]
        assert "annotated-chart" not in epub.read(name).decode()
    assert formulas > 30
    assert len([name for name in pictures if "charts/" in name]) == 3
    assert set(pictures) <= set(epub.namelist())
