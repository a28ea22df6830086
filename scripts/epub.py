"""Make an EPUB of the whole book: ``_build/html/annotated.epub``.

Sphinx does it, with the book's own settings but for what a website has and an e-reader
has not: buttons, themes, scripts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

ROOT = Path(__file__).resolve().parents[1]
WEBSITE = {"sphinx_book_theme", "sphinx_comments", "sphinx_copybutton", "sphinx_design"}


def settings() -> dict[str, object]:
    """Give the book's settings as an e-reader needs them."""
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml",
        sourcedir=ROOT,
        cli_config={"latex_individualpages": False},
    )
    config["extensions"] = [e for e in config["extensions"] if e not in WEBSITE]
    for name in ("html_css_files", "html_js_files"):
        config[name] = []
    config |= {
        "external_toc_path": str(ROOT / "_toc.yml"),
        "html_math_renderer": "mathml",
        "html_static_path": ["book/_ext/annotated_site/epub"],
        "epub_css_files": ["epub.css"],
        "epub_basename": "annotated",
        "epub_title": config["html_title"],
        "epub_author": config["author"],
        "epub_publisher": config["author"],
        "epub_copyright": config["copyright"],
        "epub_identifier": config["html_theme_options"]["repository_url"],
        "epub_uid": "annotated-book",
        "epub_show_urls": "no",
        "epub_tocdepth": 2,
    }
    return config


def main(arguments: list[str] | None = None) -> None:
    """Build the EPUB; a warning is an error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "html" / "annotated.epub"
    )
    options = parser.parse_args(arguments)
    folder = ROOT / "_build" / "epub"
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            srcdir=ROOT,
            confdir=None,
            outdir=folder,
            doctreedir=ROOT / "_build" / ".doctrees-epub",
            buildername="epub",
            confoverrides=settings(),
            warningiserror=True,
            keep_going=True,
        )
        app.build(force_all=True)
    if app.statuscode:
        sys.exit(app.statuscode)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "annotated.epub", options.out)
    print(f"{options.out.stat().st_size / 1e6:.1f} MB: {options.out}")


if __name__ == "__main__":
    main()
