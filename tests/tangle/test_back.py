"""`tangle --back` where it is exact, and where it is not."""

from typing import Any

import pytest

MARKER = "# %% notebooks/a_data.ipynb#config"


@pytest.fixture
def tangled(book: Any) -> Any:
    """The book in normal form, with its package written."""
    assert book.run("normalise").code == 0
    assert book.run().code == 0
    return book


def replace(book: Any, old: str, new: str) -> None:
    path = book.module("data")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_new_function_enters_all(tangled: Any) -> None:
    replace(tangled, "LIMIT = 2\n", "LIMIT = 2\nMOST = 3\n")
    assert tangled.run("--back").out.startswith("notebooks/a_data.ipynb#limit changed")
    assert "MOST = 3" in tangled.source("a_data", "limit")
    assert '"MOST", ' in tangled.module("data").read_text()
    assert tangled.run("--check").code == 0


def test_all_may_be_edited_with_the_cell(tangled: Any) -> None:
    replace(tangled, "root", "square_root")
    line = tangled.refuses("--back")  # the model imports it under its old name
    assert "01_model.ipynb#imports:1" in line
    model = tangled.module("model")
    model.write_text(model.read_text().replace("root(1)", "1"))
    tangled.put("01_model", "imports", "from annotated.data import Config")
    tangled.put("01_model", "model", "def model(config: Config):\n    return 1")
    tangled.run("normalise")
    replace(tangled, "square_root", "root")
    assert tangled.run().code == 0
    replace(tangled, "root", "square_root")
    assert tangled.run("--back").code == 0
    assert tangled.run("--check").code == 0


REFUSED = {
    "marker removed": (
        f"{MARKER}\n",
        "",
        ["#config` belongs", "src/annotated/data.py:"],
    ),
    "marker renamed": (MARKER, MARKER + "s", ["#configs", "#config` belongs"]),
    "marker added": ("LIMIT = 2", "# %% new\nLIMIT = 2", ["`# %% new`"]),
    "last marker removed": (
        "# %% notebooks/a_data.ipynb#helper\n",
        "",
        ["#helper` is missing"],
    ),
    "import added": ("import math", "import math\nimport os", ["data.py:7", "undo"]),
    "header edited": ("About a_data", "About data", ["data.py:4", "undo"]),
    "export dropped": ('"LIMIT", ', "", ["undo this edit"]),
    "empty line lost": ("return math.sqrt(x)\n\n\n", "return x\n\n", ["#limit", "two"]),
    "syntax error": ("LIMIT = 2", "LIMIT = = 2", ["a_data.ipynb#limit:1", "syntax"]),
    "unknown name": ("LIMIT = 2", "LIMIT = TWO", ["a_data.ipynb#limit:1", "TWO"]),
    "code becomes imports": (
        "def helper(x):\n    return x",
        "import os",
        ["data.py", "#helper", "in the notebook"],
    ),
    "carriage returns": ("LIMIT = 2\n", "LIMIT = 2\r\n", ["#limit:1", "invisible"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_is_not_exact(tangled: Any, name: str) -> None:
    old, new, expected = REFUSED[name]
    replace(tangled, old, new)
    line = tangled.refuses("--back")
    for part in expected:
        assert part in line


def test_refuses_cells_that_changed_places(tangled: Any) -> None:
    path = tangled.module("data")
    head, one, two, three = path.read_text().split("# %% ")
    path.write_text("# %% ".join([head, two, one, three]))
    assert "#limit` belongs" in tangled.refuses("--back")


def test_refuses_a_missing_module(tangled: Any) -> None:
    tangled.module("model").unlink()
    assert "run `tangle`" in tangled.refuses("--back")


def test_refuses_a_file_that_is_no_text(tangled: Any) -> None:
    tangled.module("model").write_bytes(b"\xff")
    assert "model.py: is not UTF-8" in tangled.refuses("--back")


def test_refuses_a_notebook_that_it_would_reformat(tangled: Any) -> None:
    tangled.save("a_data", tangled.load("a_data"))
    replace(tangled, "LIMIT = 2", "LIMIT = 3")
    assert "a_data.ipynb: is not in normal form" in tangled.refuses("--back")
