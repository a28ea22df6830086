"""What a committed notebook promises before anything is run."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import vl_convert
from altair import VEGALITE_VERSION

from annotated.figures import MIME_TYPE

SILENT = {"nbval-ignore-output", "nbval-skip"}
MACHINE_PATH = re.compile(
    r"(?:/root|/home|/Users|/tmp|/work|/content|site-packages)/\w"
)


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """Return the cell's tags."""
    return set(cell.metadata.get("tags", []))


def test_is_committed_executed(cells: list[nbformat.NotebookNode]) -> None:
    """Counts run 1, 2, 3 …: the outputs come from one run from top to bottom."""
    counts = {cell.id: cell.execution_count for cell in cells}
    wanted = {cell.id: number for number, cell in enumerate(cells, start=1)}
    assert counts == wanted, "execute it: make notebooks NOTEBOOKS=…"


def test_has_no_error_left_in_it(cells: list[nbformat.NotebookNode]) -> None:
    """A traceback is there on purpose or not at all."""
    broken = [
        cell.id
        for cell in cells
        if "raises-exception" not in tags(cell)
        and any(output.output_type == "error" for output in cell.outputs)
    ]
    assert not broken


def test_gives_a_reason_for_each_output_that_is_not_compared(
    cells: list[nbformat.NotebookNode],
) -> None:
    """The reason is a sentence in the cell's metadata, under annotated.reason."""
    silent = [
        cell.id
        for cell in cells
        if tags(cell) & SILENT
        and not cell.metadata.get("annotated", {}).get("reason", "").strip()
    ]
    assert not silent, f"{silent}: say why in metadata: annotated.reason"


def test_executes_each_exported_cell(cells: list[nbformat.NotebookNode]) -> None:
    """Code of the package is never skipped."""
    skipped = [
        cell.id
        for cell in cells
        if "nbval-skip" in tags(cell) and tags(cell) & {"export", "export-private"}
    ]
    assert not skipped


def test_shows_no_path_of_the_machine_that_ran_it(
    notebook: Path, cells: list[nbformat.NotebookNode]
) -> None:
    """Outputs speak of files as a reader has them."""
    seen = [
        f"{cell.id}: {match.group()}"
        for cell in cells
        for output in cell.outputs
        for match in MACHINE_PATH.finditer(readable(output))
    ]
    assert not seen, notebook.name


def readable(output: nbformat.NotebookNode) -> str:
    """Return the text of an output, without pictures and drawings."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return str(output.evalue)
    return "".join(
        str(data)
        for kind, data in output.get("data", {}).items()
        if kind == "text/plain"
    )


def test_has_no_control_characters(notebook: Path) -> None:
    """An escape in a script has made one letter of a backslash and the letter after."""
    book = nbformat.read(notebook, as_version=4)
    odd = [c.id for c in book.cells if re.search(r"[\x00-\x09\x0b-\x1f]", c.source)]
    assert not odd, "cells with control characters in their text"


# Outside of code. On the site MyST would read all of these; JupyterLab, Colab and
# GitHub show them as they are written, or drop them.
NOT_PLAIN = re.compile(
    r"\{[\w:-]+\}``|^ *:::|^ *(?:```|~~~)\{|\$\$ *\([\w-]+\)|\[\^[\w-]+\]|^\([\w-]+\)="
    r"|^> *\[!\w+\]|\{\{|</?(?!details>|summary>)[a-zA-Z][^<>]*>|<!--",
    re.MULTILINE,
)
CODE = re.compile(r"(?P<ticks>`+)(?!\{).*?(?<!`)(?P=ticks)(?!`)", re.DOTALL)


def odd_marks(text: str) -> list[str]:
    """Find what only some of the notebook's homes can read, outside of code."""
    return [match.group() for match in NOT_PLAIN.finditer(CODE.sub("``", text))]


@pytest.mark.parametrize(
    "text",
    [
        "see {cite}`vaswani2017`", "by {eq}`loss`", ":::{note}\nx\n:::",
        "```{note}\nx\n```", "$$ x $$ (loss)", "more[^1]", "(here)=\n## Here",
        "> [!NOTE]\n> x", "so {{ name }}", "<b>bold</b>", "<br>", "<!-- no -->",
    ],
)  # fmt: skip
def test_odd_marks_are_found(text: str) -> None:
    """A role, a directive, a label, a footnote, a tag: each is seen."""
    assert odd_marks(text)


def test_plain_marks_are_let_through() -> None:
    """Code may hold anything; a formula may say less than; details fold."""
    assert not odd_marks("`{cite}` and ``<b>`` and\n```html\n<br>\n```\n")
    assert not odd_marks("$a < b$ and $\\mathrm{x}_{y}$ > **Note** [a](b.ipynb#c)")
    assert not odd_marks("<details><summary>Solution</summary>\n\nx\n\n</details>")


def test_text_is_plain_markdown(notebook: Path) -> None:
    """It reads well on the site, in JupyterLab, in Colab and on GitHub."""
    book = nbformat.read(notebook, as_version=4)
    odd = {
        cell.id: found
        for cell in book.cells
        if cell.cell_type == "markdown" and (found := odd_marks(cell.source))
    }
    assert not odd


def charts(cells: list[nbformat.NotebookNode]) -> dict[str, nbformat.NotebookNode]:
    """Find the outputs that are charts, and name each after its cell."""
    return {
        f"{cell.id}, output {number}": output.data
        for cell in cells
        for number, output in enumerate(cell.outputs)
        if any("vegalite" in kind for kind in output.get("data", {}))
    }


def test_charts_are_stored_as_jupyterlab_draws_them(
    cells: list[nbformat.NotebookNode],
) -> None:
    """JSON, picture and words, and no fragment, which it would prefer to the JSON."""
    kinds = {MIME_TYPE, "image/png", "text/plain"}
    wrong = [name for name, data in charts(cells).items() if set(data) != kinds]
    assert not wrong, "execute it, not in Colab: make notebooks NOTEBOOKS=…"


def test_outputs_ask_for_no_trust(cells: list[nbformat.NotebookNode]) -> None:
    """Scripts of a notebook that comes from elsewhere are left out; ours has none.

    How to read the book says so.
    """
    scripts = {"text/html", "application/javascript"}
    asking = [
        cell.id
        for cell in cells
        for output in cell.outputs
        if scripts & set(output.get("data", {}))
    ]
    assert not asking


def test_vega_lite_5_draws_the_charts_as_6_does(
    cells: list[nbformat.NotebookNode],
) -> None:
    """JupyterLab has the fifth, Altair and the site the sixth: equal words and marks.

    Of the fifth there is 5.8 here; Lab's is a little older.
    """
    unlike = []
    for name, data in charts(cells).items():
        fifth, sixth = (
            seen(vl_convert.vegalite_to_svg(dict(data[MIME_TYPE]), vl_version=version))
            for version in ("5.8", VEGALITE_VERSION.rpartition(".")[0])
        )
        if fifth != sixth:
            unlike.append(f"{name}: {set(fifth) ^ set(sixth)}")
    assert not unlike


def seen(svg: str) -> Counter[tuple[str, str]]:
    """Count the words of a drawing, and its marks."""
    return Counter(re.findall(r"<text[^>]*>([^<]*)|<(path|image)\b", svg))
