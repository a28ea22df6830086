"""Keep the list of the site's addresses that others may point to.

    python scripts/anchors.py

These are the public names on the pages of the API and the exported cells on the pages
of the chapters: what the package's own markers name, what tracebacks show, and what
other projects link to. The command adds new ones to `tests/site/anchors.txt` and takes
none away; a test fails when one of the list has gone from the site.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "site" / "anchors.txt"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from annotated_site.api import objects  # noqa: E402
from annotated_site.package import read  # noqa: E402

from tangle.book import read_book  # noqa: E402


def current() -> set[str]:
    """Name the addresses that the sources give, whether the list has them or not."""
    names = {
        f"{page.docname}.html#{name}"
        for page in read(ROOT).values()
        for name, _ in objects(page)
    }
    cells = {
        f"{notebook.path.removesuffix('.ipynb')}.html#{cell.id}"
        for notebook in read_book(ROOT)
        for cell in notebook.exported
    }
    return names | cells


def listed() -> set[str]:
    """Read the list."""
    return set(LIST.read_text(encoding="utf-8").split()) if LIST.exists() else set()


if __name__ == "__main__":
    new = sorted(current() - listed())
    LIST.write_text("\n".join(sorted(listed() | set(new))) + "\n", encoding="utf-8")
    print(f"{LIST.relative_to(ROOT)}: {len(new)} added", *new[:20], sep="\n  ")
