"""Notebooks lose what editors add, and nothing else."""

import json
from typing import Any

import nbformat
import pytest

SETUP = """\
# Colab: install the book's package. At home, where it is installed, this does nothing.
import importlib.util
import os

if importlib.util.find_spec("annotated") is None:
    package = os.environ.get("ANNOTATED_PACKAGE", "git+https://example.org/us/book")
    %pip install -q "$package\""""


def cells(book: Any, name: str = "a_data") -> dict[str, Any]:
    return {cell["id"]: cell for cell in book.load(name)["cells"]}


def change(book: Any, cell: str, **fields: Any) -> None:
    data = book.load("a_data")
    next(c for c in data["cells"] if c["id"] == cell).update(fields)
    book.save("a_data", data)


def test_the_form_is_that_of_nbformat_and_stays(book: Any) -> None:
    assert book.run("normalise").out.splitlines() == [
        "wrote notebooks/01_model.ipynb",
        "wrote notebooks/a_data.ipynb",
    ]
    before = book.files()
    assert book.run("normalise").out == ""
    assert book.run("normalise", "--check").code == 0
    assert book.files() == before
    text = book.path("a_data").read_text()
    notebook = nbformat.reads(text, as_version=4)
    assert nbformat.writes(notebook) + "\n" == text


def test_check_writes_nothing(book: Any) -> None:
    before = book.files()
    result = book.run("normalise", "--check", str(book.path("a_data")))
    assert result.code == 1
    assert result.err == (
        "tangle: out of date: notebooks/a_data.ipynb: run `tangle normalise`\n"
    )
    assert book.files() == before


def test_the_setup_cell_is_written(book: Any) -> None:
    book.run("normalise")
    order = list(cells(book))
    assert order[:3] == ["title", "setup", "imports"]
    setup = cells(book)["setup"]
    assert "".join(setup["source"]) == SETUP
    assert setup["metadata"] == {
        "annotated": {"reason": "installs in Colab"},
        "tags": ["hide-input", "nbval-ignore-output"],
    }
    config = book.root / "_config.yml"
    config.write_text(config.read_text().replace("example.org", "example.net"))
    book.run("normalise")
    assert list(cells(book)) == order
    assert "git+https://example.net/us/book" in "".join(cells(book)["setup"]["source"])


def test_counts_run_from_one(book: Any) -> None:
    output = {"output_type": "execute_result", "data": {}, "metadata": {}}
    change(book, "try-it", outputs=[output | {"execution_count": 9}])
    change(book, "helper", source="")
    change(book, "helper", metadata={})
    book.run("normalise")
    found = cells(book)
    counts = [c["execution_count"] for c in found.values() if c["cell_type"] == "code"]
    assert counts == [1, 2, 3, 4, 5, None]
    assert found["try-it"]["outputs"][0]["execution_count"] == 4


def test_printed_text_is_in_one_piece(book: Any) -> None:
    def stream(text: str | list[str], name: str = "stdout") -> dict[str, Any]:
        return {"output_type": "stream", "name": name, "text": text}

    pieces = [
        stream("one\n"),
        stream(["t", "wo\n"]),
        stream("\r 0%", "stderr"),
        stream("\r 99%\n", "stderr"),
        stream("3"),
    ]
    change(book, "imports", outputs=pieces)
    assert book.run("normalise").code == 0
    outputs = cells(book)["imports"]["outputs"]
    assert [(o["name"], "".join(o["text"])) for o in outputs] == [
        ("stdout", "one\ntwo\n"), ("stderr", " 99%\n"), ("stdout", "3")
    ]  # fmt: skip
    assert book.run("normalise", "--check").code == 0


def test_noise_goes_and_meaning_stays(book: Any) -> None:
    kept = {
        "annotated": {"reason": "times differ"},
        "mystnb": {"image": {"alt": "a line"}},
        "tags": ["check", "hide-input"],
    }
    noise = {
        "colab": {"base_uri": "x"},
        "outputId": "1",
        "collapsed": True,
        "execution": {"iopub.execute_input": "2026"},
        "executionInfo": {"elapsed": 3},
        "scrolled": False,
        "jupyter": {"outputs_hidden": True},
    }
    output = {
        "output_type": "display_data",
        "data": {
            "text/plain": "bar",
            "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
            "application/vnd.google.colaboratory.intrinsic+json": {"type": "x"},
        },
        "metadata": {"image/png": {"width": 3}, "outputId": "2"},
    }
    change(book, "try-it", metadata=kept | noise, outputs=[output])
    data = book.load("a_data")
    data["metadata"] |= {"colab": {}, "widgets": {}, "accelerator": "GPU"}
    data["metadata"]["kernelspec"] = {"name": "venv", "display_name": "mine"}
    data["metadata"]["language_info"] = {"name": "python", "version": "3.12.1"}
    book.save("a_data", data)
    book.run("normalise")
    assert book.load("a_data")["metadata"] == {
        "annotated": {"module": "annotated.data"},
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    cell = cells(book)["try-it"]
    assert cell["metadata"] == kept
    assert cell["outputs"] == [
        {
            "output_type": "display_data",
            "data": {"text/plain": ["bar"]},
            "metadata": {"image/png": {"width": 3}},
        }
    ]


def test_colab_moves_the_id_and_we_move_it_back(book: Any) -> None:
    book.run("normalise")
    before = book.files()
    data = book.load("a_data")
    for cell in data["cells"]:
        cell["metadata"]["id"] = cell.pop("id")
    data["nbformat_minor"] = 0
    book.save("a_data", data)
    assert book.run("normalise").code == 0
    assert book.files() == before


@pytest.mark.parametrize("name", ["3fa4c09e", "3fa4c09e-1b2c-4d5e-8f90-a1b2c3d4e5f6"])
def test_an_id_that_an_editor_made_up(book: Any, name: str) -> None:
    change(book, "try-it", id=name)
    line = book.refuses("normalise")
    assert f"a_data.ipynb#{name}" in line
    assert '"id" in the cell\'s metadata' in line
    change(book, name, metadata={"id": "square-root"})
    assert book.run("normalise").code == 0
    assert "square-root" in cells(book)


@pytest.mark.parametrize("name", ["Try it", "try_it", "x" * 70, "-", "tryIt"])
def test_an_id_that_is_no_anchor(book: Any, name: str) -> None:
    change(book, "try-it", id=name)
    assert "words-joined-by-hyphens" in book.refuses("normalise")


def test_one_bad_notebook_keeps_all_from_being_written(book: Any) -> None:
    change(book, "limit", metadata={"tags": ["exported"]})
    assert "a_data.ipynb#limit:1: unknown tag 'exported'" in book.refuses("normalise")


def test_lost_export_tags_are_noticed(book: Any) -> None:
    data = book.load("a_data")
    for cell in data["cells"]:
        cell["metadata"] = {}
    book.save("a_data", data)
    assert "a_data.ipynb: owns annotated.data" in book.refuses("normalise")


@pytest.mark.parametrize("config", ["", "repository: x\n", "repository:\n  url: 3\n"])
def test_no_repository_address(book: Any, config: str) -> None:
    (book.root / "_config.yml").write_text(config)
    assert "_config.yml: has no https address" in book.refuses("normalise")


def test_a_notebook_that_jupyter_would_not_open(book: Any) -> None:
    change(book, "limit", outputs=[{"output_type": "poem"}])
    assert "a_data.ipynb: is not a valid notebook" in book.refuses("normalise")
    change(book, "limit", outputs=3)
    assert "a_data.ipynb: is not a valid notebook" in book.refuses("normalise")


def test_unicode_is_written_as_it_is(book: Any) -> None:
    change(book, "try-it", source="print('注意力 é')")
    book.run("normalise")
    assert "注意力 é" in book.path("a_data").read_text(encoding="utf-8")
    text = json.dumps(book.load("a_data")).replace("\\u6ce8", "\\ud800")
    book.path("a_data").write_text(text)
    assert "a_data.ipynb" in book.refuses("normalise")
