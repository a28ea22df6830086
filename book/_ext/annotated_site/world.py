"""What the world outside sees of the book: its address, cards for links, a map.

The site's address follows from the repository's, which `_config.yml` has: GitHub Pages
serves ``github.com/OWNER/NAME`` as ``OWNER.github.io/NAME/``. A link to a page, pasted
somewhere else, shows a card with the page's title; a search engine finds all pages in
``sitemap.xml``; and an address that no page has gets ``404.html``, at whatever depth.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import matplotlib
from docutils import nodes
from PIL import Image, ImageDraw, ImageFont
from sphinx.application import Sphinx

CARDS = "_static/cards"
CARD_SIZE = (1200, 630)
DESCRIPTION = 200  # letters; more is cut off by those who show it
PAPER, INK, QUIET, ACCENT = "#ffffff", "#12202e", "#52606d", "#00588a"  # custom.css
MISSING = "404"
MISSING_TEXT = """<section><h1>There is no such page</h1>
<p>The address may have a slip in it, or the page has moved. All chapters are listed on
<a href="{root}">the first page</a>, and <a href="{search}">the search</a> looks through
them.</p></section>"""
DOWNLOADS = """<p>The whole book as <a href="{base}annotated.pdf">PDF</a> and as
<a href="{base}annotated.epub">EPUB</a>.</p>"""
RELATIVE = re.compile(r'\b(href|src|action|data-content_root)="(?!https?:|/|#|data:)')


def site_address(repository: str) -> str:
    """Give the address at which GitHub Pages serves a repository.

    >>> site_address("https://github.com/Someone/book")
    'https://someone.github.io/book/'
    >>> site_address("https://github.com/someone/someone.github.io/")
    'https://someone.github.io/'
    """
    owner, name = urlsplit(repository).path.strip("/").split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def know_the_address(app: Sphinx, config: Any) -> None:
    """Derive the site's address; below each page, say where the whole book is.

    PDF and EPUB are made when the book is published: a page read from a disk leads to
    the published ones too.
    """
    options = config.html_theme_options
    config.html_baseurl = site_address(options["repository_url"])
    options["extra_footer"] = DOWNLOADS.format(base=config.html_baseurl)


# Cards ------------------------------------------------------------------------------


def first_words(doctree: nodes.document) -> str:
    """Give a page's first paragraph, or as much of it as a card can show."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            text = " ".join(paragraph.astext().split())
            if len(text) <= DESCRIPTION:
                return text
            return text[: DESCRIPTION - 1].rpartition(" ")[0].rstrip(",;:.") + " …"
    return ""


def font(size: int, style: str = "") -> ImageFont.FreeTypeFont:
    """Load the serif that comes with Matplotlib: every machine draws the same card."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / f"DejaVuSerif{style}.ttf"), size)


def lines(words: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a title into lines that fit."""
    broken = [""]
    for word in words.split():
        longer = f"{broken[-1]} {word}".strip()
        if broken[-1] and letters.getlength(longer) > width:
            broken.append(word)
        else:
            broken[-1] = longer
    return broken


def card(title: str, book: str) -> Image.Image:
    """Draw a page's title, with the book's name below it."""
    image = Image.new("RGB", CARD_SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 24, CARD_SIZE[1]), fill=ACCENT)
    room = CARD_SIZE[0] - 200
    for size in (84, 72, 60, 50):
        letters = font(size)
        broken = lines(title, letters, room)
        if len(broken) <= 4 and all(letters.getlength(line) <= room for line in broken):
            break
    draw.multiline_text((100, 90), "\n".join(broken), INK, letters, spacing=size // 4)
    draw.text((100, CARD_SIZE[1] - 120), book, QUIET, font(32))
    return image.quantize(16, dither=Image.Dither.NONE)


def introduce(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Say in the page's head what a link to it shows elsewhere."""
    if app.builder.name != "html" or doctree is None:
        return
    base, book = app.config.html_baseurl, app.config.html_title or app.config.project
    title = html.unescape(re.sub(r"<[^>]*>", "", context["title"]))
    root = pagename == app.config.root_doc
    picture = f"{CARDS}/{pagename.replace('/', '-')}.png"
    file = Path(app.outdir, picture)
    file.parent.mkdir(parents=True, exist_ok=True)
    card(book if root else title, book.partition(":")[0]).save(file, optimize=True)
    words = first_words(doctree)
    properties = {
        "og:type": "website" if root else "article",
        "og:title": book if root else title,
        "og:description": words,
        "og:url": base + app.builder.get_target_uri(pagename),
        "og:site_name": book,
        "og:image": base + picture,
        "og:image:width": str(CARD_SIZE[0]),
        "og:image:height": str(CARD_SIZE[1]),
        "og:image:alt": f"The title: {book if root else title}",
    }
    tags = [f'<meta name="description" content="{html.escape(words)}" />']
    tags += ['<meta name="twitter:card" content="summary_large_image" />']
    tags += [
        f'<meta property="{name}" content="{html.escape(value)}" />'
        for name, value in properties.items()
    ]
    context["metatags"] = context.get("metatags", "") + "\n".join(["", *tags, ""])


# The map, and the page for what is not on it ----------------------------------------


def missing_page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Add the page that stands for each address without one."""
    if app.builder.name == "html":
        root = app.builder.get_target_uri(app.config.root_doc)
        body = MISSING_TEXT.format(root=root, search="search.html")
        yield MISSING, {"title": "There is no such page", "body": body}, "page.html"


def write_map(app: Sphinx, error: Exception | None) -> None:
    """List all pages for search engines, and anchor the missing page at the root."""
    if error is not None or app.builder.name != "html":
        return
    base, outdir = app.config.html_baseurl, Path(app.outdir)
    places = [
        f"<url><loc>{html.escape(base + app.builder.get_target_uri(page))}</loc></url>"
        for page in sorted(app.env.found_docs)
    ]
    (outdir / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        + "\n".join(places)
        + "\n</urlset>\n",
        encoding="utf-8",
    )
    page = outdir / f"{MISSING}.html"
    anchored = rf'\1="{urlsplit(base).path}'
    page.write_text(
        RELATIVE.sub(anchored, page.read_text(encoding="utf-8")).replace("/./", "/"),
        encoding="utf-8",
    )


def setup(app: Sphinx) -> None:
    """Register the handlers."""
    app.connect("config-inited", know_the_address)
    app.connect("html-page-context", introduce)
    app.connect("html-collect-pages", missing_page)
    app.connect("build-finished", write_map, priority=950)  # when the sheets are joined
