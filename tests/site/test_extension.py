"""The Sphinx extension and the figures, piece by piece, without building the site."""

from __future__ import annotations

import base64
import doctest
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
from docutils import nodes
from docutils.utils import new_document
from PIL import Image
from sphinx import addnodes

from annotated import figures

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from annotated_site import (  # noqa: E402
    assets,
    callouts,
    charts,
    ebook,
    lean,
    notebooks,
    package,
    world,
)


@pytest.fixture(autouse=True)
def theme():
    """Draw in the book's theme, and leave Altair as it was."""
    figures.use_theme()
    yield
    alt.renderers.enable("default")
    alt.theme.enable("default")


def heat() -> alt.LayerChart:
    """Draw a small attention map with a word that occurs twice."""
    weights = np.array([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6]])
    return figures.attention_map(weights, ["a", "b", "a"], ["x", "y"], "Looks")


def spec_of(chart: alt.LayerChart) -> dict:
    """Describe a chart as the renderer gets it."""
    return chart.to_dict()


# What a chart's output holds ------------------------------------------------------


@pytest.fixture
def in_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what tells a notebook that it runs in Colab."""
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))


def test_a_chart_is_a_bundle_for_every_home() -> None:
    output = heat()._repr_mimebundle_()
    assert set(output) == {figures.MIME_TYPE, "image/png", "text/plain"}
    assert output["text/plain"].startswith("Looks. 2 by 3 values. Largest 0.70 at x")
    picture = Image.open(io.BytesIO(base64.b64decode(output["image/png"])))
    assert len(picture.getcolors() or []) <= 64


def test_colab_gets_a_fragment_too(in_colab) -> None:
    output = heat()._repr_mimebundle_()
    fragment = output.pop("text/html")
    assert set(output) == {figures.MIME_TYPE, "image/png", "text/plain"}
    assert fragment.index("<img") < fragment.index("<script")


def test_equal_charts_give_equal_bytes() -> None:
    first, second = heat()._repr_mimebundle_(), heat()._repr_mimebundle_()
    assert json.dumps(first) == json.dumps(second)


def test_every_kind_of_chart_is_repeatable_and_described() -> None:
    def draw() -> list[dict]:
        points = np.arange(12.0).reshape(2, 3, 2)
        return [
            spec_of(figures.similarity_map(np.eye(2), "ab", "cd", "Same")),
            spec_of(figures.embedding_map(points[0], "abc", None, "One moment")),
            spec_of(figures.embedding_map(points, "abc", "xxy", "Two", steps=[0, 9])),
            spec_of(figures.loss_curves({"sgd": [[3.0, 2.0], [4.0, 3.0]]}, "Falls")),
        ]

    assert draw() == draw()
    assert all(
        spec["description"].startswith(spec["title"]["text"][0]) for spec in draw()
    )


def test_text_cannot_leave_the_script_of_a_fragment(in_colab) -> None:
    chart = figures.similarity_map(np.eye(1), ["</script>"], ["b"], "</script><b>")
    html = chart._repr_mimebundle_()["text/html"]
    assert html.count("</script>") == 1


# What the figures refuse ----------------------------------------------------------


def test_exchanged_axes_are_refused_even_if_the_shape_fits() -> None:
    weights = np.array([[0.9, 0.1], [0.6, 0.4]])
    figures.attention_map(weights, ["a", "b"], ["c", "d"], "Right")
    with pytest.raises(ValueError, match=r"target word 'c' sum to 1\.500"):
        figures.attention_map(weights.T, ["a", "b"], ["c", "d"], "Wrong")


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (
            lambda: figures.similarity_map(np.eye(2), "abc", "de", "t"),
            "expected 3 rows",
        ),
        (
            lambda: figures.similarity_map(np.eye(2) / 0, "ab", "de", "t"),
            "NaN or infin",
        ),
        (lambda: figures.embedding_map(np.eye(2), "abc", None, "t"), "2 points but 3"),
        (
            lambda: figures.loss_curves({"a": [[1.0], [1.0, 2.0]]}, "t"),
            "need one length",
        ),
        (lambda: figures.loss_curves({"a": []}, "t"), "need one length"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_be_drawn_is_said_in_one_line(draw, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        draw()
    assert "\n" not in str(caught.value)


def test_attention_puts_the_source_along_the_top() -> None:
    encoding = spec_of(heat())["layer"][0]["encoding"]
    assert encoding["x"]["title"] == "source"
    assert encoding["x"]["axis"]["orient"] == "top"
    assert encoding["x"]["axis"]["labelExpr"] == '["a", "b", "a"][datum.value]'
    assert encoding["y"]["title"] == "target"


def test_band_runs_from_the_best_to_the_worst_run() -> None:
    spec = spec_of(figures.loss_curves({"sgd": [[4.0, 2.0], [6.0, 3.0]]}, "Falls"))
    first = next(iter(spec["datasets"].values()))[0]
    assert first == {"run": "sgd", "step": 1, "mean": 5.0, "low": 4.0, "high": 6.0}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_their_paper(theme: figures.Theme) -> None:
    paper = figures.INK[theme]["paper"]
    for name in figures.SERIES[theme]:
        assert figures.contrast(figures.PALETTE[name], paper) >= 3
    assert figures.contrast(figures.INK[theme]["quiet"], paper) >= 4.5


def test_pages_have_the_papers_that_the_colours_were_measured_on() -> None:
    style = (ROOT / "book/_static/custom.css").read_text(encoding="utf-8")
    assert f"--pst-color-background: {figures.INK['dark']['paper']};" in style


@pytest.mark.parametrize("module", [figures, package, world])
def test_examples_in_docstrings(module) -> None:
    assert doctest.testmod(module).failed == 0


# What the page makes of a notebook ------------------------------------------------


def test_page_prefers_the_json_and_carries_no_address_of_a_network(in_colab) -> None:
    output = charts.prefer_json(heat()._repr_mimebundle_(), "here")
    assert list(output) == ["text/html"]
    html = output["text/html"]
    assert "cdn" not in html
    assert 'role="figure" tabindex="0" aria-label="Looks.' in html
    stored = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert stored is not None
    assert json.loads(stored[1]) == spec_of(heat())


def test_frame_reserves_the_height_of_picture_slider_and_groups() -> None:
    points = np.arange(12.0).reshape(2, 3, 2)
    chart = figures.embedding_map(points, "abc", None, "Two", steps=[0, 9])
    output = chart._repr_mimebundle_()
    height = charts.png_size(base64.b64decode(output["image/png"]))[1] // 2
    html = charts.prefer_json(output, "here")["text/html"]
    assert f"--height:{height + 2 * charts.CONTROL_HEIGHT}px" in html


def test_chart_leaves_the_page_for_two_files(tmp_path: Path) -> None:
    output = heat()._repr_mimebundle_()
    html = charts.prefer_json(output, "here")["text/html"]
    page = charts.take_out(f"<p>before{html}after</p>", tmp_path, "../_static/charts")
    name = re.search(r'data-chart="(\w+)"', page)[1]
    assert "<script" not in page and "base64" not in page and len(page) < 1000
    assert page.startswith("<p>before<div class") and page.endswith("></div>after</p>")
    picture = tmp_path / charts.FOLDER / f"{name}.png"
    assert picture.read_bytes() == base64.b64decode(output["image/png"])
    width, height = charts.png_size(picture.read_bytes())
    assert (
        f'src="../_static/charts/{name}.png" width="{width // 2}" '
        f'height="{height // 2}" loading="lazy"' in page
    )
    script = (tmp_path / charts.FOLDER / f"{name}.js").read_text(encoding="utf-8")
    call = re.fullmatch(r'annotatedChart\("(\w+)", (.*)\);\n', script)
    assert call[1] == name and json.loads(call[2]) == spec_of(heat())


def test_chart_without_description_stops_the_build() -> None:
    with pytest.raises(Exception, match="a chart without a description"):
        charts.prefer_json({figures.MIME_TYPE: {"mark": "point"}}, "page#cell")


def test_other_outputs_are_left_alone() -> None:
    output = {"text/html": "<b>table</b>", "text/plain": "table"}
    assert charts.prefer_json(output, "here") == output


def quote(*words: nodes.Node) -> nodes.document:
    """Make a page that is one quote."""
    page = new_document("page.md")
    page += nodes.block_quote("", nodes.paragraph("", "", *words))
    return page


def test_bold_opening_makes_a_callout() -> None:
    bold = nodes.strong("", "Pitfall 27.")
    page = quote(nodes.Text(""), bold, nodes.Text(" The noise"))
    callouts.Callouts(page).apply()
    (box,) = page.children
    assert isinstance(box, nodes.admonition)
    assert box["classes"] == ["callout", "pitfall"]
    assert [child.astext() for child in box.children] == ["Pitfall 27", "The noise"]


@pytest.mark.parametrize("word", ["Notebook", "Warning", "note"])
def test_other_quotes_stay_quotes(word: str) -> None:
    page = quote(nodes.strong("", word), nodes.Text(" and so on"))
    callouts.Callouts(page).apply()
    assert isinstance(page.children[0], nodes.block_quote)


@pytest.mark.parametrize(
    ("source", "tag", "text", "targets"),
    [
        (
            ["LIMIT: int = 3\n", "class Vectors: ..."],
            "export",
            "LIMIT, Vectors",
            ["annotated.word2vec.LIMIT", "annotated.word2vec.Vectors"],
        ),
        ("HE, _SHE = 'il', 'elle'", "export", "HE, _SHE", ["annotated.word2vec.HE"]),
        ("def own(): ...", "export-private", "own", []),
        ("import math", "export", "imports", []),
    ],
)
def test_label_names_module_and_definitions(source, tag, text, targets) -> None:
    cell = {"id": "vectors", "source": source, "metadata": {"tags": [tag]}}
    line = notebooks.label("annotated.word2vec", cell)
    assert line.astext() == f"annotated.word2vec · {text} #"
    links = [node["reftarget"] for node in line.findall(addnodes.pending_xref)]
    assert links == ["annotated.word2vec", *targets]
    assert [node["refid"] for node in line.findall(nodes.reference)] == ["vectors"]


@pytest.mark.parametrize(
    ("cell_id", "tags", "said"),
    [
        ("setup", ["hide-input"], "Show the set-up for Colab"),
        ("exercise-noise-solution", ["hide-input"], "Show the solution"),
        ("solution-1", ["hide-cell"], "Show the solution"),
        ("check-noise", ["hide-input", "check"], "Show the check"),
        ("map", ["hide-input"], "Show the code"),
        ("map", [], None),
    ],
)
def test_hidden_input_says_what_it_hides(cell_id: str, tags: list, said) -> None:
    cell = {"id": cell_id, "metadata": {"tags": tags}}
    notebooks.name_what_is_hidden(cell)
    assert cell["metadata"].get("mystnb", {}).get("code_prompt_show") == said


# What a page may load -------------------------------------------------------------


def test_requests_to_other_hosts_are_found_and_links_are_not() -> None:
    page = """<link rel="stylesheet" href="//fonts.example/a.css">
    <script src="https://cdn.example/b.js"></script><script src="c.js"></script>
    <img src="http://img.example/d.png"><a href="https://arxiv.org">paper</a>
    <link rel="canonical" href="https://book.example/">"""
    assert assets.requests(page) == [
        "//fonts.example/a.css",
        "https://cdn.example/b.js",
        "http://img.example/d.png",
    ]


def test_vega_comes_with_both_themes_in_a_scope_of_its_own() -> None:
    script = assets.vega_script()
    assert script.startswith("(function () {") and script.rstrip().endswith("})();")
    for theme, paper in (("light", "#ffffff"), ("dark", "transparent")):
        assert f'{theme}:{{"background":"{paper}"' in script.replace(
            f'"{theme}"', theme
        )


# What a page weighs ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("sheet", "left"),
    [
        (".used{a:1}.unused{b:2}", ".used{a:1}"),
        (".used p,.unused p{a:1}", ".used p{a:1}"),
        (".used.unused{a:1}", ""),
        ("p:not(.unused){a:1}", "p:not(.unused){a:1}"),
        ("p:is(.used,.unused)>a{a:1}", "p:is(.used,.unused)>a{a:1}"),
        ("@media print{.unused{a:1}}", ""),
        ("@media print{.unused{a:1}.used{b:2}}", "@media print{.used{b:2}}"),
        ('@font-face{src:url("a.woff2")}', '@font-face{src:url("a.woff2")}'),
        ("/* note */p{a:1}", "p{a:1}"),
    ],
)
def test_rules_that_match_nothing_are_left_out(sheet: str, left: str) -> None:
    assert lean.lean_sheet(sheet, {"used"}) == left


def test_classes_are_looked_for_in_pages_and_scripts(tmp_path: Path) -> None:
    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text('<p class="note big">prose</p>')
    (tmp_path / "_static" / "a.js").write_text("p.classList.add('shown-now')")
    (tmp_path / "_static" / "b.html").write_text('<p class="not-a-page">')
    words = lean.words_in_use(tmp_path)
    assert {"note", "big", "shown-now"} <= words
    assert not {"prose", "not-a-page"} & words


def test_icons_are_the_letters_in_strings() -> None:
    sheet = r'.a{content:"\f09b"}.b{--icon:"\2b x"}.c{content:"+"}.d{width:9px}'
    assert lean.letters(sheet) == {0xF09B, 0x2B, *map(ord, " x+")}


def test_pages_share_one_sheet_also_when_few_are_written_anew(tmp_path: Path) -> None:
    styles = tmp_path / "_static" / "styles"
    styles.mkdir(parents=True)
    (tmp_path / "_static" / "base.css").write_text(".a{x:url(dot.png)}")
    (styles / "theme.css").write_text('@import "../base.css";.b{y:1}')
    (tmp_path / "_static" / "own.css").write_text(".a{x:2}")
    (tmp_path / "deep").mkdir()
    head = (
        '<link href="{0}_static/styles/theme.css?digest=1" rel="stylesheet" />\n'
        '<link rel="stylesheet" type="text/css" href="{0}_static/own.css?v=2" />\n'
    )
    pages = {tmp_path / "a.html": "", tmp_path / "deep" / "b.html": "../"}
    for page, up in pages.items():
        page.write_text(f'{head.format(up)}<script></script><p class="a">')
    lean.one_sheet(tmp_path)
    sheet = (tmp_path / lean.SHEET).read_text()
    assert sheet.endswith(";.a{x:url(../dot.png)}.a{x:2}")  # in order, and without .b
    linked = r'<link rel="stylesheet" href="{}_static/styles/annotated.css\?v=\w+" />\n'
    for page, up in pages.items():
        assert re.match(linked.format(up) + "<script>", page.read_text())
    first = (tmp_path / "a.html").read_text()
    (tmp_path / "a.html").write_text(f'{head.format("")}<p class="b">')
    lean.one_sheet(tmp_path)
    assert (tmp_path / lean.SHEET).read_text().endswith(".b{y:1}.a{x:2}")
    second = (tmp_path / "a.html").read_text()
    assert second.count("<link") == 1 and second[:80] != first[:80]


def test_pictures_wait_and_keep_their_room() -> None:
    picture = ROOT / "book/_static/book.png"
    body = '<img alt="a" src="../_images/x.png" /><img src="../_static/logo.svg"/>'
    lazy = lean.lazy_pictures(body, {"x.png": picture})
    width, height = charts.png_size(picture.read_bytes())
    assert f'<img loading="lazy" width="{width}" height="{height}" alt="a"' in lazy
    assert lazy.count("loading=") == 1


def test_drawing_gets_a_palette_and_keeps_its_looks(tmp_path: Path) -> None:
    file = tmp_path / "drawing.png"
    drawing = Image.new("RGBA", (300, 200), (255, 255, 255, 255))
    drawing.paste((0, 88, 138, 255), (20, 20, 200, 90))
    drawing.save(file, compress_level=0)
    before = file.stat().st_size
    lean.pack(file)
    packed = Image.open(file)
    assert packed.mode == "P" and file.stat().st_size < before / 10
    assert packed.convert("RGB").getpixel((50, 50)) == (0, 88, 138)


# What others see ------------------------------------------------------------------


def test_description_is_the_first_paragraph_and_ends_at_a_word() -> None:
    page = new_document("page.md")
    quote_first = nodes.block_quote("", nodes.paragraph("", "not this"))
    page += nodes.section("", quote_first, nodes.paragraph("", "two\nlines"))
    assert world.first_words(page) == "two lines"
    page[0][1] = nodes.paragraph("", "many words, " * 50)
    words = world.first_words(page)
    assert len(words) <= world.DESCRIPTION and words.endswith(("many …", "words …"))


@pytest.mark.parametrize("title", ["Short", "A title of many words " * 5, "long" * 9])
def test_card_shows_the_whole_title(title: str) -> None:
    image = world.card(title, "Book").convert("L")
    assert image.size == world.CARD_SIZE
    ink = image.point(lambda value: 255 * (value < 200))
    _, top, right, bottom = ink.crop((30, 0, *world.CARD_SIZE)).getbbox()
    assert right < world.CARD_SIZE[0] - 60 and top > 60 and bottom < 580
    between = ink.crop((30, 480, *world.CARD_SIZE)).crop((0, 0, 1000, 30))
    assert between.getbbox() is None, "the title runs into the book's name"


# What an e-reader shows -----------------------------------------------------------


def formulas() -> dict[str, str]:
    """Collect the mathematics of all notebooks: formula, and where one stands."""
    found = {}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                text = re.sub(
                    r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.S
                )
                for block, line in re.findall(
                    r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.S
                ):
                    found[block or line] = f"{notebook.name}#{cell['id']}"
    return found


def test_each_formula_of_the_book_is_mathml() -> None:
    wrong = []
    for tex, place in formulas().items():
        written = ebook.mathml(tex, display=False)
        try:
            math = ElementTree.fromstring(f"<p>{written}</p>")
        except ElementTree.ParseError as problem:
            wrong.append(f"{place}: {problem}: {tex}")
            continue
        if "\\" in "".join(math.itertext()):
            wrong.append(f"{place}: not understood: {tex}")
    assert len(formulas()) > 500 and not wrong, "\n".join(wrong)


def test_number_of_an_equation_stands_beside_it() -> None:
    written = ebook.mathml(r"E = mc^2 \tag{3}", display=True)
    assert written.startswith('<span class="eqno">(3)</span><math')
    assert 'display="block"' in written and "tag" not in written


def test_e_reader_gets_the_picture_of_a_chart(tmp_path: Path) -> None:
    output = heat()._repr_mimebundle_()
    html = charts.prefer_json(output, "here")["text/html"]
    page = ebook.pictures(f"<p>{html}</p>", tmp_path, "../charts")
    (picture,) = tmp_path.glob("*.png")
    assert picture.read_bytes() == base64.b64decode(output["image/png"])
    (image,) = ElementTree.fromstring(page).iter("img")
    assert image.get("src") == f"../charts/{picture.name}"
    assert image.get("alt").startswith("Looks. 2 by 3 values")
    assert "script" not in page and "base64" not in page
