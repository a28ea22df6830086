"""Notebooks in one normal form, whichever editor saved them.

Ids, sources, tags and outputs are kept. What an editor adds for itself goes: Colab's
and Jupyter's metadata, widget state, times of execution. Execution counts run 1..N, as
if the notebook had just been executed from top to bottom, and what a cell printed is
in one piece, of a progress bar only how it ended. The cell `setup`, which installs the
package in Colab, is written from `repository.url` in `_config.yml`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tangle.book import notebook_files, repository_url
from tangle.files import fail
from tangle.notebooks import MACHINE_ID, check_human_id, check_ids, dump, load, parse

KEEP_IN_NOTEBOOK = ("annotated", "mystnb")
KEEP_IN_CELL = ("annotated", "mystnb", "tags")
NOISE_IN_OUTPUT = ("base_uri", "colab", "executionInfo", "outputId")
NOISE_IN_DATA = (
    "application/vnd.google.colaboratory.intrinsic+json",
    "application/vnd.jupyter.widget-view+json",
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")
SETUP = """\
# Colab: install the book's package. At home, where it is installed, this does nothing.
import importlib.util
import os

if importlib.util.find_spec("annotated") is None:
    package = os.environ.get("ANNOTATED_PACKAGE", "git+{url}")
    %pip install -q "$package\""""
SETUP_METADATA = {
    "annotated": {"reason": "installs in Colab"},
    "tags": ["hide-input", "nbval-ignore-output"],
}


def normalise(root: Path, paths: Sequence[str] = ()) -> dict[Path, str | None]:
    """The normal form of these notebooks, or of all: a text for each file."""
    url = repository_url(root)
    contents: dict[Path, str | None] = {}
    for path in paths or notebook_files(root):
        try:
            data = load(path, (root / path).read_bytes())
        except FileNotFoundError:
            fail(path, "does not exist: name a notebook as notebooks/NAME.ipynb")
        _clean(data, url)
        check_ids(path, data)
        for cell in data["cells"]:
            check_human_id(path, cell["id"])
        text = dump(path, data)
        parse(path, text.encode())
        contents[root / path] = text
    return contents


def _clean(data: dict[str, Any], url: str) -> None:
    data["nbformat_minor"] = 5
    kept = {key: data["metadata"].get(key) for key in KEEP_IN_NOTEBOOK}
    data["metadata"] = {key: value for key, value in kept.items() if value is not None}
    data["metadata"] |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    for cell in data["cells"]:
        _name(cell)
    _write_setup(data["cells"], url)
    count = 0
    for cell in data["cells"]:
        metadata = {
            k: cell["metadata"][k] for k in KEEP_IN_CELL if k in cell["metadata"]
        }
        cell["metadata"] = {key: value for key, value in metadata.items() if value}
        if "tags" in cell["metadata"]:
            cell["metadata"]["tags"] = list(dict.fromkeys(cell["metadata"]["tags"]))
        if cell["cell_type"] == "code":
            number = None
            if "".join(cell["source"]).strip():
                count += 1
                number = count
            cell["execution_count"] = number
            cell.setdefault("outputs", [])
            if isinstance(cell["outputs"], list):
                cell["outputs"] = _join_prints(cell["outputs"])
                for output in cell["outputs"]:
                    _clean_output(output, number)
        else:
            cell.pop("outputs", None)
            cell.pop("execution_count", None)


def _name(cell: dict[str, Any]) -> None:
    """Take the id from the metadata, where Colab keeps it and a person can write it.

    An id that is a person's word stays, whatever the metadata say.
    """
    given, name = cell["metadata"].get("id"), cell.get("id")
    if given and (not isinstance(name, str) or MACHINE_ID.fullmatch(name)):
        cell["id"] = given


def _write_setup(cells: list[dict[str, Any]], url: str) -> None:
    source = SETUP.format(url=url)
    cell = next((cell for cell in cells if cell.get("id") == "setup"), None)
    if cell is None:
        cell = {"id": "setup", "source": ""}
        cells.insert(1, cell)
    if "".join(cell["source"]) != source:
        cell |= {"cell_type": "code", "source": source, "outputs": []}
    cell["metadata"] = dict(SETUP_METADATA)


def _join_prints(outputs: list[Any]) -> list[Any]:
    """Printed text in one piece, which a busy kernel hands out in several."""
    joined: list[Any] = []
    for output in outputs:
        stream = _stream(output)
        if stream and joined and stream == _stream(joined[-1]):
            joined[-1]["text"] = "".join([*joined[-1]["text"], *output["text"]])
        else:
            joined.append(output)
    for output in joined:
        if _stream(output) == "stderr":  # stdout is compared, so it stays as it is
            output["text"] = OVERWRITTEN.sub("", "".join(output["text"]))
    return joined


def _stream(output: Any) -> str | None:
    """The name of the stream that this output belongs to, if it is well formed."""
    try:
        "".join(output["text"])  # a TypeError for what is no text
        return str(output["name"]) if output["output_type"] == "stream" else None
    except (KeyError, TypeError):
        return None


def _clean_output(output: Any, number: int | None) -> None:
    if not isinstance(output, dict):
        return
    if output.get("output_type") == "execute_result":
        output["execution_count"] = number
    for part, noise in (("metadata", NOISE_IN_OUTPUT), ("data", NOISE_IN_DATA)):
        if isinstance(output.get(part), dict):
            for key in noise:
                output[part].pop(key, None)
