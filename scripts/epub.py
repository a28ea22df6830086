"""Make an EPUB of the whole book: ``_build/html/annotated.epub``.

Sphinx does it, with the book's own settings but for what a website has and an e-reader
has not: buttons, themes, scripts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import metadata, version
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree
from zipfile import ZipFile

import yaml
from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

ROOT = Path(__file__).resolve().parents[1]
WEBSITE = {"sphinx_book_theme", "sphinx_comments", "sphinx_copybutton", "sphinx_design"}


def contents(pages: list[str], made: Path) -> Path:
    """Write the contents, down to sections; of the pages named, if any are."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    toc["defaults"] = {"titlesonly": False}  # the website lists sections by itself
    for part in toc["parts"]:
        kept = [c for c in part["chapters"] if not pages or c["file"] in pages]
        part["chapters"] = kept
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    made.write_text(yaml.safe_dump(toc), encoding="utf-8")
    return made


def settings(toc: Path) -> dict[str, object]:
    """Give the book's settings as an e-reader needs them."""
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml",
        sourcedir=ROOT,
        cli_config={"latex_individualpages": False},
    )
    config["extensions"] = [e for e in config["extensions"] if e not in WEBSITE]
    theirs = (
        "comments_config",
        "copybutton_prompt_text",
        "copybutton_prompt_is_regexp",
    )
    for name in ("html_css_files", "html_js_files", *theirs):
        config.pop(name, None)
    config |= {
        "version": version("annotated"),
        "external_toc_path": str(toc),
        "html_math_renderer": "mathml",
        "pygments_style": "a11y-high-contrast-light",  # as on the site
        "html_static_path": ["book/_ext/annotated_site/epub"],
        "epub_css_files": ["epub.css"],
        "epub_basename": "annotated",
        "epub_title": config["html_title"],
        "epub_author": config["author"],
        "epub_contributor": config["author"],
        "epub_publisher": config["author"],
        "epub_description": metadata("annotated")["Summary"],
        "epub_copyright": config["copyright"],
        "epub_identifier": config["html_theme_options"]["repository_url"],
        "epub_uid": "annotated-book",
        "epub_show_urls": "no",
        "epub_tocdepth": 2,
        "epub_tocscope": "includehidden",
    }
    return config


def check(file: Path) -> None:
    """Stop if a reader could not open a page: each must be well-formed XML."""
    with ZipFile(file) as book:
        for name in book.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx")):
                try:
                    ElementTree.fromstring(book.read(name))
                except ElementTree.ParseError as problem:
                    sys.exit(f"{file.name}: {name} is no XML: {problem}")


def main(arguments: list[str] | None = None) -> None:
    """Build the EPUB; of the whole book, a warning is an error.

    Of some pages it is for a quick look: their links to others are warnings.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="notebooks/01_word2vec; all, if none")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "html" / "annotated.epub"
    )
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as own, patch_docutils(), docutils_namespace():
        scratch = Path(own)  # nobody else's: what lies in it is bound
        app = Sphinx(
            srcdir=ROOT,
            confdir=None,
            outdir=scratch / "pages",
            doctreedir=scratch / "doctrees",
            buildername="epub",
            confoverrides=settings(contents(options.pages, scratch / "toc.yml")),
            warningiserror=not options.pages,
            keep_going=True,
        )
        app.build(force_all=True)
        if app.statuscode:
            sys.exit(app.statuscode)
        made = scratch / "pages" / "annotated.epub"
        check(made)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, options.out)
    print(f"{options.out.stat().st_size / 1e6:.1f} MB: {options.out}")


if __name__ == "__main__":
    main()
