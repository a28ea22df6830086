"""Which notebooks there are, in which order, and where the repository lives."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tangle.files import fail
from tangle.notebooks import Notebook, parse

FOLDER = "notebooks"


def find_root(start: Path) -> Path:
    """The nearest folder, upwards from `start`, that has a `_toc.yml`."""
    folders = (start, *start.parents)
    for folder in folders:
        if (folder / "_toc.yml").is_file():
            return folder
    return fail(
        str(start), "no _toc.yml here or above: run in the book, or give --root"
    )


def read_book(root: Path, only: Sequence[str] = ()) -> list[Notebook]:
    """The notebooks in the order of the book.

    With `only`, the book ends at the last of these: whoever works on one chapter can
    tangle it while a later one is in pieces.
    """
    listed = listed_notebooks(root)
    if only:
        for path in only:
            if path not in listed:
                fail(path, "is not in _toc.yml: add it at its place in the book")
        listed = listed[: max(map(listed.index, only)) + 1]
    else:
        for found in notebook_files(root):
            if found not in listed:
                fail(found, "is not in _toc.yml: add it at its place, or delete it")
    notebooks = [read_notebook(root, path) for path in listed]
    owners: dict[str, str] = {}
    for notebook in notebooks:
        if notebook.module:
            owner = owners.setdefault(notebook.module, notebook.path)
            if owner != notebook.path:
                fail(
                    notebook.path,
                    f"claims {notebook.module}, which {owner} owns: one notebook, one "
                    "module; change annotated.module in its metadata",
                )
    return notebooks


def read_notebook(root: Path, path: str) -> Notebook:
    try:
        return parse(path, (root / path).read_bytes())
    except FileNotFoundError:
        fail(path, "is listed in _toc.yml but does not exist: write it, or unlist it")


def notebook_files(root: Path) -> list[str]:
    """The notebooks that lie in the folder, whether the book lists them or not."""
    return sorted(f"{FOLDER}/{file.name}" for file in (root / FOLDER).glob("*.ipynb"))


def listed_notebooks(root: Path) -> list[str]:
    """The notebooks that `_toc.yml` lists, in its order. Other pages are not ours."""
    paths: list[str] = []
    for entry in _entries(_read_yaml(root, "_toc.yml")):
        path = entry.removesuffix(".ipynb") + ".ipynb"
        if path.startswith(f"{FOLDER}/"):
            if path in paths:
                fail("_toc.yml", f"lists {path} twice: keep one")
            paths.append(path)
    return paths


def _entries(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key in ("root", "file"):
            if key in node:
                yield str(node[key])
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _entries(item)


def repository_url(root: Path) -> str:
    """The one address of the repository: `repository.url` in `_config.yml`."""
    config = _read_yaml(root, "_config.yml")
    repository = config.get("repository") if isinstance(config, dict) else None
    url = repository.get("url") if isinstance(repository, dict) else None
    if not isinstance(url, str) or not url.startswith("https://"):
        fail(
            "_config.yml", "has no https address under repository: url: write it there"
        )
    return url.rstrip("/")


def _read_yaml(root: Path, name: str) -> Any:
    try:
        return yaml.safe_load((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        fail(name, f"is missing from {root.name or root}: is this the book's folder?")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        fail(
            where, f"is not valid YAML ({getattr(error, 'problem', error)}): correct it"
        )
