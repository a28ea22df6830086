"""The site as files: all pages are there, all links lead somewhere, all names agree."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from PIL import Image
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).parents[2]
GENERATED = {"404.html", "genindex.html", "search.html", "index.html"}
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
CITATION = re.compile(
    r"\[([^\[\]]*?\b((?:1[89]|20)\d\d)[a-z]?)[^\[\]]*\]\((https?://[^)\s]+)\)"
)

PAPER_HOSTS = re.compile(
    r"//(?:[\w.]+\.)?(?:arxiv|aclanthology|doi|jmlr|mlr\.press|nips|neurips|openreview)"
    r"(?:\.\w+)?/"
)


@cache
def soup(file: Path) -> BeautifulSoup:
    """Parse a page of the site, once."""
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(file: Path) -> frozenset[str]:
    """List the places of a page that a link can lead to."""
    named = soup(file).find_all(lambda tag: tag.get("id") or tag.get("name"))
    return frozenset(
        str(tag[key]) for tag in named for key in ("id", "name") if tag.get(key)
    )


def test_build_is_clean(site) -> None:
    """The build, with warnings as errors, says nothing that needs a hand."""
    words = ("WARNING", "ERROR", "Error:", "CRITICAL")
    bad = [line for line in site.log.splitlines() if any(w in line for w in words)]
    assert not bad, "\n".join(bad)
    assert "build succeeded" in site.log, site.log[-2000:]


def test_the_pages_are_those_of_the_table_of_contents(site) -> None:
    """Each entry has become a page, and no page is there that no entry names."""
    found = {
        str(file.relative_to(site.html))
        for file in site.html.rglob("*.html")
        if not file.relative_to(site.html).parts[0].startswith("_")
    }
    assert found - GENERATED == {f"{page}.html" for page in site.pages}


def test_the_front_door_leads_to_the_landing_page(site) -> None:
    """``index.html`` at the top sends the reader on."""
    assert f"{site.pages[0]}.html" in (site.html / "index.html").read_text()


def test_page_has_a_title_and_text(site, page_name: str) -> None:
    """A page that failed to render would be empty, not absent."""
    article = soup(site.html / f"{page_name}.html").find("article")
    titles = [title.get_text() for title in article.find_all("h1")]
    assert len(titles) == 1, f"{page_name}: one title a page, not {titles}"
    assert len(article.get_text(strip=True)) > 200, f"{page_name} is all but empty"


def test_links_inside_the_site_lead_somewhere(site, page_name: str) -> None:
    """Each link has a file at its end, and its fragment a place in that file."""
    file = site.html / f"{page_name}.html"
    dead = []
    for tag in soup(file).find_all(["a", "img", "script", "link"]):
        link = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
            continue
        path = urlsplit(urljoin(f"/{page_name}.html", link)).path
        target = site.html / unquote(path).lstrip("/")
        if not target.is_file():
            dead.append(f"{link} (no such file)")
        elif (
            parts.fragment
            and target.suffix == ".html"
            and unquote(parts.fragment) not in anchors(target)
        ):
            dead.append(f"{link} (no such place in {target.name})")
    assert not dead, f"{page_name}: dead links: " + ", ".join(sorted(set(dead)))


def test_page_loads_nothing_from_elsewhere(site, page_name: str) -> None:
    """Scripts, styles, pictures and frames are the site's own."""
    page = soup(site.html / f"{page_name}.html")
    loading = [
        *page.find_all(
            ["script", "img", "iframe", "source", "video", "audio", "embed"]
        ),
        *(
            link
            for link in page.find_all("link")
            if not {"canonical", "next", "prev"} & set(link.get("rel", []))
        ),
    ]
    outside = [
        str(tag)[:120]
        for tag in loading
        if ELSEWHERE.match(tag.get("src") or tag.get("href") or "")
    ]
    assert not outside, f"{page_name} loads from elsewhere: {outside}"


def test_styles_load_nothing_from_elsewhere(site) -> None:
    """No style sheet imports another host's fonts or pictures."""
    pattern = re.compile(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)")
    outside = [
        f"{file.relative_to(site.html)}: {match[1]}"
        for file in sorted(site.html.rglob("*.css"))
        for match in pattern.finditer(file.read_text(encoding="utf-8"))
    ]
    assert not outside, "\n".join(outside)


def test_pages_show_their_cards(site, page_name: str) -> None:
    """A link to the page shows its title, its first words and a picture that is there.

    The addresses are those at which GitHub serves the repository.
    """
    page = soup(site.html / f"{page_name}.html")
    said = {
        tag.get("property") or tag.get("name"): tag["content"]
        for tag in page.find_all("meta")
        if tag.get("content")
    }
    base = home()
    assert said["og:url"] == f"{base}{page_name}.html"
    assert page.find("link", rel="canonical")["href"] == said["og:url"]
    assert said["og:title"] and said["og:title"] in page.title.get_text()
    assert 30 < len(said["og:description"]) <= 200
    assert said["description"] == said["og:description"]
    picture = site.html / said["og:image"].removeprefix(base)
    with Image.open(picture) as image:
        assert image.size == (1200, 630)
    assert picture.stat().st_size < 60_000


def home() -> str:
    """Give the site's address."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    owner, name = config["repository"]["url"].split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def test_map_has_each_page_once(site) -> None:
    """Search engines read ``sitemap.xml``."""
    tree = ElementTree.parse(site.html / "sitemap.xml")
    space = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    places = [place.text for place in tree.getroot().iter(f"{space}loc")]
    assert sorted(places) == sorted(f"{home()}{page}.html" for page in site.pages)


def test_missing_page_works_at_any_depth(site) -> None:
    """All that ``404.html`` links to and loads is named from the host's root."""
    page = soup(site.html / "404.html")
    assert (
        page.find("article").find("h1").get_text().startswith("There is no such page")
    )
    root, seen = urlsplit(home()).path, 0
    for tag in page.find_all(["a", "img", "script", "link", "form"]):
        link = tag.get("href") or tag.get("src") or tag.get("action") or "#"
        if not link.startswith(("#", "https:")):
            seen += 1
            assert link.startswith(root), link
            path = urlsplit(link).path.removeprefix(root)
            assert (site.html / unquote(path)).is_file(), link
    assert seen > 20
    assert page.html["data-content_root"] == root


def test_icons_have_their_letters(site) -> None:
    """The fonts, small as they are, have each icon that the style sheet shows."""
    folder = site.html / "_static" / "styles"
    sheet = (folder / "annotated.css").read_text(encoding="utf-8")
    letters: set[int] = set()
    for font in re.findall(r"url\(([^)]+\.woff)\)", sheet):
        assert (folder / font).stat().st_size < 10_000
        letters.update(TTFont(folder / font).getBestCmap())
    used = {
        name
        for page in site.pages
        for icon in soup(site.html / f"{page}.html").find_all(class_=re.compile("^fa-"))
        for name in icon["class"]
    }
    shown = re.findall(r'\.(fa-[\w-]+):before\{content: ?"(.)"', sheet)
    icons = {name: ord(letter) for name, letter in shown if name in used}
    assert {"fa-github", "fa-rocket", "fa-download", "fa-bars"} <= set(icons)
    assert set(icons.values()) <= letters


def notebooks() -> list[Path]:
    """List the notebooks of the book."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_each_exported_cell_is_an_anchor_of_its_page(site, notebook: Path) -> None:
    """A marker in the package, ``notebook#cell``, leads to a place on the page."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    exported = {
        cell["id"]
        for cell in cells
        if any(tag.startswith("export") for tag in cell["metadata"].get("tags", []))
    }
    places = anchors(site.html / "notebooks" / f"{notebook.stem}.html")
    missing = sorted(exported - places)
    assert not missing, f"{notebook.name}: cells without an anchor: {missing}"


def test_each_notebook_opens_in_colab(site, page_name: str) -> None:
    """A notebook's page has one button for Colab, which opens that notebook."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    owner_and_name = "/".join(config["repository"]["url"].split("/")[-2:])
    here = f"https://colab.research.google.com/github/{owner_and_name}/blob/main"
    buttons = soup(site.html / f"{page_name}.html").select(
        '.article-header-buttons a[href*="colab"]'
    )
    wanted = [f"{here}/{page_name}.ipynb"] * page_name.startswith("notebooks/")
    assert [button["href"] for button in buttons] == wanted
    assert all(button.get("title") for button in buttons)


# Papers


@cache
def papers() -> dict[str, Entry]:
    """Read the bibliography: address → entry; a paper may have two addresses."""
    found = {}
    for entry in parse_file(ROOT / "book" / "references.bib").entries.values():
        for address in addresses(entry):
            found[address] = entry
    return found


def addresses(entry: Entry) -> Iterator[str]:
    """Give where a paper can be read."""
    if "url" in entry.fields:
        yield entry.fields["url"].rstrip("/")
    if "doi" in entry.fields:
        yield f"https://doi.org/{entry.fields['doi']}"


def prose() -> Iterator[tuple[str, str]]:
    """Go through the book's text: where it stands, and what it says."""
    for page in sorted((ROOT / "book").glob("*.md")):
        yield f"book/{page.name}", page.read_text(encoding="utf-8")
    for notebook in notebooks():
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                source = cell["source"]
                text = source if isinstance(source, str) else "".join(source)
                yield f"notebooks/{notebook.name}#{cell.get('id')}", text


def plain(name: str) -> str:
    """Fold a name to bare small letters: ``Řehůřek`` → ``rehurek``.

    LaTeX writes an accent as a command; pybtex leaves the letter in braces.
    """
    name = re.sub(r"\\[a-zA-Z]\s+|[\\{}'\"`^~]", "", name)
    folded = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in folded if letter.isalpha())


def test_each_paper_has_an_address() -> None:
    """An entry without url or doi can't be read, nor linked to."""
    entries = parse_file(ROOT / "book" / "references.bib").entries
    bare = [key for key, entry in entries.items() if not list(addresses(entry))]
    assert not bare, f"references.bib: no url or doi: {bare}"


def test_each_cited_paper_is_in_the_bibliography() -> None:
    """A link "[Name … YEAR](address)" is an entry, with that author and that year."""
    wrong, seen = [], 0
    for place, text in prose():
        for label, year, address in CITATION.findall(text):
            seen += 1
            entry = papers().get(address.rstrip("/"))
            if entry is None:
                wrong.append(f"{place}: [{label}]({address}) is not in references.bib")
                continue
            author = plain(" ".join(entry.persons["author"][0].last_names))
            named = plain(label.partition(year)[0]) or author  # "…2013a and 2013b"
            if not named.startswith(author) or entry.fields["year"] != year:
                wrong.append(f"{place}: [{label}] leads to {entry.key}")
    assert not wrong, "\n".join(wrong)
    assert seen, "no citation found: the pattern or the book is broken"


def test_each_link_to_a_paper_is_in_the_bibliography() -> None:
    """Whatever its text says: a page of an archive, of proceedings, of a journal.

    A link to a part of a paper, such as its section on the page of the archive, leads
    to the same paper.
    """
    linked, missing = 0, []
    for place, text in prose():
        for address in re.findall(r"\]\((https?://[^)\s#]+)", text):
            if PAPER_HOSTS.search(address):
                linked += 1
                if address.rstrip("/") not in papers():
                    missing.append(f"{place}: {address}")
    assert not missing, "add to book/references.bib:\n" + "\n".join(missing)
    assert linked > 100


# Names


SHAPE = re.compile(r"[*#?]*([a-z]\w*)")


def axes(module: Path) -> set[str]:
    """Collect the axes in a module's shapes: ``Float[Tensor, "batch dim"]`` has two."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Tuple):
            continue
        kind, shape = node.slice.elts[0], node.slice.elts[-1]
        if isinstance(kind, ast.Constant):  # Literal["light", "dark"]
            continue
        if isinstance(shape, ast.Constant) and isinstance(shape.value, str):
            names = map(SHAPE.fullmatch, shape.value.split())
            found |= {match[1] for match in names if match}
    return found


@pytest.mark.parametrize(
    "module", sorted((ROOT / "src" / "annotated").glob("*.py")), ids=lambda p: p.stem
)
def test_each_axis_in_the_code_is_in_the_notation(module: Path) -> None:
    """The notation page names every axis that a signature of the package uses."""
    text = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
    table = text.partition("## Axes")[2].partition("\n## ")[0]
    named = set(re.findall(r"`\*?([a-z]\w*)`", table))
    missing = sorted(axes(module) - named)
    assert not missing, f"{module.name} has axes that book/notation.md lacks: {missing}"


def test_what_a_page_points_to_in_the_code_is_there() -> None:
    """``notebooks/N.ipynb#cell`` is a cell, and ``annotated.module.Name`` a name.

    A link may lead to a heading as well, and the build fails when it leads nowhere.
    """
    named = re.compile(r"(?<!\]\(\.\./)\b(notebooks/\w+\.ipynb)#([\w-]+)")
    wrong = []
    for page in sorted((ROOT / "book").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for file, cell in named.findall(text):
            cells = json.loads((ROOT / file).read_text(encoding="utf-8"))["cells"]
            if all(each["id"] != cell for each in cells):
                wrong.append(f"{page.name}: {file} has no cell {cell}")
        for module, name in re.findall(r"\bannotated\.(\w+)\.(\w+)", text):
            file = ROOT / "src" / "annotated" / f"{module}.py"
            source = file.read_text(encoding="utf-8") if file.exists() else ""
            if not re.search(rf"^(?:def|class) {name}\b|^{name}\b.*=", source, re.M):
                wrong.append(f"{page.name}: annotated.{module} has no {name}")
    assert not wrong, "\n".join(wrong)


# One address


def test_the_address_of_the_repository_is_written_once() -> None:
    """``_config.yml`` has it; elsewhere only text that a reader copies may repeat it.

    That is the README, the citation file and the notebooks' first cells.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    name = url.rpartition("/")[2]
    pattern = re.compile(rf"github\.com/[\w.-]+/{re.escape(name)}\b")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wrong = []
    for line in listed.stdout.splitlines():
        try:
            text = (ROOT / line).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # a picture, or a file that was just removed
        for match in pattern.findall(text):
            if not url.endswith(match):
                wrong.append(f"{line}: {match} is not the address in _config.yml")
            elif not may_repeat(line):
                wrong.append(f"{line}: take {match} from _config.yml")
    assert not wrong, "\n".join(wrong)


def may_repeat(file: str) -> bool:
    """Tell whether a reader copies the address from this file."""
    if file in ("_config.yml", "README.md", "CITATION.cff"):
        return True
    return file.startswith("notebooks/") and file.endswith(".ipynb")
