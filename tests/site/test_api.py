"""The API: every public name has its place, and cell and entry lead to each other."""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "scripts")]

import anchors as addresses  # noqa: E402
from annotated_site import package  # noqa: E402

INDEX = "book/api/index"
MODULES = sorted(
    path.stem
    for path in (ROOT / "src" / "annotated").glob("*.py")
    if not path.stem.startswith("__")
)
every_module = pytest.mark.parametrize("module", MODULES)


@cache
def tree(module: str) -> ast.Module:
    """Parse a module of the package, as tangle has written it."""
    file = ROOT / "src" / "annotated" / f"{module}.py"
    return ast.parse(file.read_text(encoding="utf-8"))


def public(module: str) -> list[str]:
    """Read a module's ``__all__``."""
    for node in tree(module).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return ast.literal_eval(value)
    return []


@cache
def entries(file: Path) -> dict[str, Tag]:
    """Parse a page of the API, once: its entries by their anchors."""
    page = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    return {str(tag["id"]): tag for tag in page.select("section.api-entry")}


def entry(site, module: str, name: str) -> Tag:
    """Find a name's entry on the page of its module."""
    there = entries(site.html / "book" / "api" / f"{module}.html")
    assert f"annotated.{module}.{name}" in there, f"{module}.{name} has no entry"
    return there[f"annotated.{module}.{name}"]


@cache
def places(file: Path) -> frozenset[str]:
    """List the anchors of a page. Its markup is our own, and a parser takes seconds."""
    return frozenset(re.findall(r'\bid="([^"]+)"', file.read_text(encoding="utf-8")))


@cache
def labels(file: Path) -> dict[str, Tag]:
    """Find the labels of a chapter, by the cell that each stands above."""
    text = file.read_text(encoding="utf-8")
    found = re.findall(r'<p class="export-label">.*?</p>', text, re.DOTALL)
    lines = [BeautifulSoup(line, "html.parser") for line in found]
    return {line.select_one("a.to-cell")["href"][1:]: line for line in lines}


@cache
def listed_names(file: Path) -> frozenset[str]:
    """List what the tables of names of a page lead to."""
    tables = re.findall(
        r'<table class="[^"]*\bapi-names\b.*?</table>',
        file.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    return frozenset(re.findall(r'href="[^"#]*#([^"]+)"', "".join(tables)))


def address(page: str, link: str) -> str:
    """Give the whole address, from the site's root, of a link on a page."""
    return unquote(urljoin(f"/{page}", link)).lstrip("/")


# Every name -----------------------------------------------------------------------


def test_the_contents_list_the_modules_in_the_order_of_the_book() -> None:
    """A new module needs a page of three lines, and its place under the API."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    (index,) = [each for each in chapters if each["file"] == INDEX]
    pages = [section["file"] for section in index["sections"]]
    assert pages == [page.docname for page in package.read(ROOT).values()]
    for page in package.read(ROOT).values():
        text = (ROOT / f"{page.docname}.md").read_text(encoding="utf-8")
        assert text == f"# {page.name}\n\n```{{module-api}} {page.name}\n```\n"


@every_module
def test_each_public_name_has_an_entry(site, module: str) -> None:
    """An entry has the name, a signature, and one line in each of the two tables."""
    folder = site.html / "book" / "api"
    for name in public(module):
        section = entry(site, module, name)
        assert section.find("h2").code.get_text() == name
        assert name in section.find("pre").get_text()
        for page in ("index", module):
            assert f"annotated.{module}.{name}" in listed_names(folder / f"{page}.html")


@every_module
def test_a_signature_is_that_of_the_source(module: str) -> None:
    """Parameters, shapes, defaults and result of each function and method."""
    page = package.read(ROOT)[f"annotated.{module}"]
    written = {node.name: node for node in tree(module).body if hasattr(node, "name")}
    for each in page.entries:
        node = written.get(each.name)
        assert each.doc == (ast.get_docstring(node) or "") if node else True
        if isinstance(node, ast.FunctionDef):
            assert parts(each.signature) == shape(node)
        if not isinstance(node, ast.ClassDef):
            continue
        inner = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        shown = {method.name: method for method in each.methods}
        assert shown.keys() == {name for name in inner if package.SHOWN.fullmatch(name)}
        for name, method in shown.items():
            assert parts(method.signature) == shape(inner[name])
            assert method.doc == (ast.get_docstring(inner[name]) or "")


def parts(signature: str) -> tuple[str, ...]:
    """Take a signature to pieces."""
    (node,) = ast.parse(f"{signature}: ...").body
    assert isinstance(node, ast.FunctionDef)
    return shape(node)


def shape(node: ast.FunctionDef) -> tuple[str, ...]:
    """Give what a caller has to know of a function."""
    result = ast.unparse(node.returns) if node.returns else ""
    return (
        node.name,
        ast.unparse(node.args),
        result,
        *map(ast.unparse, node.decorator_list),
    )


def test_an_alias_in_a_signature_is_written_out_below_it(site) -> None:
    """``Stream`` says nothing about a shape to a reader who came by a link."""
    text = entry(site, "transformer", "MultiHeadAttention").get_text()
    assert 'Stream = Float[Tensor, "batch q d_model"]' in text
    inherited = entry(site, "modern", "Block").get_text()
    assert 'KeyValue = Float[Tensor, "batch two kv_heads k d_head"]' in inherited


@pytest.mark.parametrize(
    ("module", "name", "cells"),
    [
        (
            "training",
            "Recipe",
            ["clip", "float", "1.0", "The longest gradient; 0 = any"],
        ),
        ("translation", "Search", ["beam", "Hypotheses kept; 1 is greedy."]),
        ("transformer", "Config", ["norm", 'Literal["post", "pre"]', '"post"']),
        ("transformer", "PRESETS", ["big", "6", "1024", "4096", "16", "0.3"]),
        ("modern", "PRESETS", ["llama-3.2-1b", "131_072", "Scaling(32.0)"]),
        ("subwords", "END", []),
    ],
)
def test_fields_and_presets_are_tables(site, module, name, cells) -> None:
    """With defaults, and with what a comment or a string below says of each."""
    rows = [
        [cell.get_text() for cell in row.find_all("td")]
        for row in entry(site, module, name).select("table.api-table tbody tr")
    ]
    assert not cells or any(set(cells) <= set(row) for row in rows), rows


def test_a_docstring_has_its_examples_and_its_links(site) -> None:
    """Code is code, a command is one, and a name in backticks leads to its entry."""
    attend = entry(site, "transformer", "attend")
    assert attend.select_one("div.highlight-pycon").get_text().startswith(">>> query")
    command = entry(site, "cli", "Neighbors").select_one("div.highlight-bash")
    assert command.get_text().strip() == "annotated neighbors king -n 5"
    links = [a["href"] for a in entry(site, "decoding", "search_all").select("p a")]
    assert "#annotated.decoding.beam_search" in links


def test_the_pages_in_the_browser_have_every_kind_of_entry(site) -> None:
    """The sample of the browser's tests, in ``conftest``, stands for all pages."""
    kinds = {
        page.docname: {each.kind for each in page.entries}
        for page in package.read(ROOT).values()
    }
    sampled = {kind for name in kinds.keys() & set(site.opened) for kind in kinds[name]}
    assert sampled == set().union(*kinds.values())


# There and back -------------------------------------------------------------------


@every_module
def test_entry_leads_to_its_cell_and_the_cell_leads_back(site, module: str) -> None:
    """The paragraph that defines a name bears a label with the name on it."""
    page = f"book/api/{module}.html"
    for name in public(module):
        (link,) = entry(site, module, name).select("p.api-explained a")
        chapter, _, cell = address(page, link["href"]).partition("#")
        assert cell in places(site.html / chapter), f"{name}: {link['href']} is dead"
        ends = [
            address(chapter, a["href"])
            for a in labels(site.html / chapter)[cell].find_all("a")
            if a.get_text() == name
        ]
        assert ends == [f"{page}#annotated.{module}.{name}"], f"{name}: no way back"


@every_module
def test_a_label_leads_to_entries_that_are_there(site, module: str) -> None:
    """Module and names lead to the API; the sign at the end to the cell itself."""
    page = package.read(ROOT)[f"annotated.{module}"]
    chapter = page.notebook.replace(".ipynb", ".html")
    assert labels(site.html / chapter)
    for cell, label in labels(site.html / chapter).items():
        for link in label.find_all("a"):
            file, _, place = address(chapter, link["href"]).partition("#")
            assert place in places(site.html / file), f"#{cell}: {link} is dead"


def test_a_label_links_to_public_names_only(site) -> None:
    """What is not public has no entry, so its name is no link."""
    label = labels(site.html / "notebooks" / "04_transformer.html")["shape-names"]
    ends = [a["href"] for a in label.find_all("a")]
    assert ends == [
        "../book/api/transformer.html#annotated.transformer",
        "#shape-names",
    ]
    assert "Stream, KeyValue, Past" in label.get_text()


# Addresses that stay --------------------------------------------------------------


def test_no_address_has_gone(site) -> None:
    """Others point to these places: markers, tracebacks, links from elsewhere."""
    gone = []
    for each in sorted(addresses.listed()):
        page, _, place = each.partition("#")
        if not (site.html / page).is_file() or place not in places(site.html / page):
            gone.append(each)
    assert not gone, (
        f"{gone}: others may link to these; give the cell or the name its old name, or "
        "strike it from tests/site/anchors.txt if nobody can know it yet"
    )


def test_each_new_address_is_listed() -> None:
    """What is on no list is not protected."""
    new = sorted(addresses.current() - addresses.listed())
    assert not new, f"run scripts/anchors.py, which lists {new[:5]} …"


# In the prose ---------------------------------------------------------------------


def spans(notebook: Path) -> list[str]:
    """List what a notebook's text sets as code, fenced blocks apart."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join(
        "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
    )
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@every_module
def test_each_public_name_is_mentioned_in_the_prose(module: str) -> None:
    """The text of the notebook that defines a name says it, in backticks."""
    page = package.read(ROOT)[f"annotated.{module}"]
    code = "\n".join(spans(ROOT / page.notebook))
    silent = [
        f"{each.full_name} ({each.cell})"
        for each in page.entries
        if not re.search(rf"(?<![\w.])({module}\.)?{each.name}(?!\w)", code)
    ]
    assert not silent, f"no text of {page.notebook} mentions {', '.join(silent)}"
