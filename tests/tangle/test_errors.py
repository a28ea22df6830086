"""Each fault is one line that says where and what to do, and changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest

Edit = Callable[[Any], object]


def cell(source: str, name: str = "limit") -> Edit:
    """Give an exported cell of the first notebook this source."""
    return lambda book: book.put("a_data", name, source)


def tags(*new: str, name: str = "limit") -> Edit:
    def edit(book: Any) -> None:
        data = book.load("a_data")
        found = next(c for c in data["cells"] if c["id"] == name)
        found["metadata"]["tags"] = list(new)
        book.save("a_data", data)

    return edit


def data(change: Callable[[Any], object], name: str = "a_data") -> Edit:
    """Change the notebook's JSON."""

    def edit(book: Any) -> None:
        content = book.load(name)
        change(content)
        book.save(name, content)

    return edit


def raw(change: Callable[[bytes], bytes]) -> Edit:
    """Change the notebook's bytes."""

    def edit(book: Any) -> None:
        path = book.path("a_data")
        path.write_bytes(change(path.read_bytes()))

    return edit


def file(name: str, text: str) -> Edit:
    def edit(book: Any) -> None:
        path = book.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return edit


HERE = "notebooks/a_data.ipynb#limit"
FUNCTION = "\ndef root(x):\n    return x"

FAULTS: dict[str, tuple[Edit, list[str]]] = {
    "unknown tag": (tags("exports"), [f"{HERE}:1", "'exports'", "export-private"]),
    "unknown tag in capitals": (tags("Export"), [HERE, "'Export'"]),
    "two export tags": (tags("export", "export-private"), [HERE, "keep one"]),
    "prose with an export tag": (
        tags("export", name="title"),
        ["a_data.ipynb#title", "only code can be exported"],
    ),
    "syntax error": (cell("x = 1\ny = = 2"), [f"{HERE}:2", "syntax error"]),
    "return at top level": (cell("x = 1\nreturn x"), [f"{HERE}:2", "syntax error"]),
    "null byte": (cell("x = '\0'"), [f"{HERE}:1", "invisible character"]),
    "no-break space": (cell("x = 1\ny =\xa02"), [f"{HERE}:2", "invisible"]),
    "carriage return": (cell("x = 1\r\ny = 2"), [f"{HERE}:1", "invisible"]),
    "line magic": (cell("x = 1\n%time y = 2"), [f"{HERE}:2", "%time", "magic"]),
    "cell magic": (cell("%%time\nx = 1"), [f"{HERE}:1", "%%time", "magic"]),
    "shell": (cell("x = 1\n!ls"), [f"{HERE}:2", "!ls", "magic"]),
    "syntax error below a question": (
        cell("# Is it?\nx = (2"),
        [f"{HERE}:2", "syntax error"],
    ),
    "syntax error at the end": (cell("x = 1\nif x:"), [f"{HERE}:2", "syntax error"]),
    "string without end": (cell("x = 1\n'''"), [f"{HERE}:2", "syntax error"]),
    "help": (cell("x = 1\nx?"), [f"{HERE}:2", "magic"]),
    "magic in an assignment": (cell("x = %pwd"), [f"{HERE}:1", "magic"]),
    "call": (cell("x = 1\nprint(x)"), [f"{HERE}:2", "print(x)", "imported"]),
    "value": (cell("x = 1\nx"), [f"{HERE}:2", "`x`"]),
    "loop": (cell("for i in range(3):\n    x = i"), [f"{HERE}:1", "imported"]),
    "if": (cell("x = 1\nif x:\n    y = 2"), [f"{HERE}:2", "imported"]),
    "with": (cell("with open('x') as f:\n    y = f"), [f"{HERE}:1"]),
    "try": (cell("try:\n    x = 1\nexcept KeyError:\n    x = 2"), [f"{HERE}:1"]),
    "assert": (cell("x = 1\nassert x"), [f"{HERE}:2"]),
    "del": (cell("x = 1\ndel x"), [f"{HERE}:2"]),
    "augmented assignment": (cell("x = 1\nx += 1"), [f"{HERE}:2"]),
    "assignment to an item": (cell("x = {}\nx['a'] = 1"), [f"{HERE}:2"]),
    "assignment to an attribute": (cell("math.x = 1"), [f"{HERE}:1"]),
    "name without a value": (cell("x: int"), [f"{HERE}:1"]),
    "work in an assignment": (cell(f"{FUNCTION}\nx = root(1)"), [f"{HERE}:4"]),
    "work inside a constant": (cell("x = [print(1)]"), [f"{HERE}:1", "print(1)"]),
    "effect in a class body": (
        cell("class A:\n    x = 1\n    print(x)"),
        [f"{HERE}:3", "print(x)"],
    ),
    "imports beside code": (
        cell("x = 1\nimport os"),
        [f"{HERE}:2", "cell of their own"],
    ),
    "relative import": (
        cell("from . import data", "imports"),
        ["#imports:1", "relative"],
    ),
    "import of everything": (
        cell("from math import *", "imports"),
        ["#imports:1", "name each"],
    ),
    "a marker in a cell": (cell("x = 1\n# %% y"), [f"{HERE}:2", "markers"]),
    "name from an untagged cell": (
        cell("LIMIT = 2\n\n\ndef root(x):\n    y = x\n    return sample"),
        [f"{HERE}:6", "sample is not exported", "#try-it defines", "tag"],
    ),
    "import in an untagged cell": (
        lambda book: (
            book.run("normalise"),
            book.put("a_data", "helper", "def helper():\n    return os"),
        ),
        ["a_data.ipynb#helper:2", "only notebooks/a_data.ipynb#setup imports it"],
    ),
    "name from nowhere": (
        cell("LIMIT = 2\nroot = lambda x: maths.sqrt(x)"),
        [f"{HERE}:2", "maths is not exported", "did you mean math"],
    ),
    "name of an earlier notebook": (
        lambda book: book.put("01_model", "model", "def model():\n    return LIMIT"),
        [
            "notebooks/01_model.ipynb#model:2",
            "from annotated.data import LIMIT",
        ],
    ),
    "name defined in two cells": (
        cell("def root(x):\n    return x", "helper"),
        ["#helper:1", "root is defined twice", f"{HERE}:4"],
    ),
    "name defined twice in a cell": (
        cell(f"LIMIT = 2{FUNCTION}\nLIMIT = 3"),
        [f"{HERE}:4", "LIMIT is defined twice", f"{HERE}:1"],
    ),
    "definition hides an import": (
        cell(f"LIMIT = 2{FUNCTION}\nmath = 3"),
        [f"{HERE}:4", "math is defined twice"],
    ),
    "two imports under one name": (
        cell("import math\nimport cmath as math", "imports"),
        ["#imports:2", "math is defined twice"],
    ),
    "needed before it is defined": (
        cell(f"LIMIT = OTHER\nOTHER = 1{FUNCTION}"),
        [f"{HERE}:1", "OTHER", f"{HERE}:2", "first"],
    ),
    "default needed before it is defined": (
        cell("LIMIT = 2\ndef root(x=Config):\n    return x"),
        [f"{HERE}:2", "Config", "#config:2"],
    ),
    "import from a later notebook": (
        lambda book: (
            book.put("01_model", "imports", "import math"),
            book.put("01_model", "model", "def model():\n    return math"),
            book.put(
                "a_data",
                "imports",
                "import math\nfrom dataclasses import "
                "dataclass\nfrom annotated.model import model",
            ),
        ),
        ["a_data.ipynb#imports:3", "01_model.ipynb", "comes later"],
    ),
    "import from a later notebook, in a function": (
        lambda book: (
            book.put("01_model", "imports", "import math"),
            book.put("01_model", "model", "def model():\n    return math"),
            book.put("a_data", "helper", "def helper():\n    import annotated.model"),
        ),
        ["a_data.ipynb#helper:2", "comes later"],
    ),
    "circle": (
        cell(
            "import math\nfrom dataclasses import dataclass\n"
            "from annotated.model import model",
            "imports",
        ),
        [
            "a_data.ipynb#imports:3",
            "annotated.data → annotated.model → annotated.data",
        ],
    ),
    "import of itself": (
        cell("def helper():\n    from annotated.data import root", "helper"),
        ["a_data.ipynb#helper:2", "annotated.data → annotated.data"],
    ),
    "import of a module that nobody writes": (
        lambda book: book.put("01_model", "imports", "import annotated.dat"),
        ["01_model.ipynb#imports:1", "annotated.dat", "did you mean annotated.data"],
    ),
    "import of a name that is not exported": (
        lambda book: book.put(
            "01_model", "imports", "from annotated.data import sample"
        ),
        ["01_model.ipynb#imports:1", "exports no sample"],
    ),
    "cell without an id": (
        data(lambda nb: nb["cells"][2].pop("id")),
        ["a_data.ipynb", "cell 3", "LIMIT = 2", "no id"],
    ),
    "two cells with one id": (
        data(lambda nb: nb["cells"][4].update(id="limit")),
        [HERE, "cells 3 and 5"],
    ),
    "exported cell with a machine's id": (
        data(lambda nb: nb["cells"][2].update(id="3fa4c09e")),
        ["a_data.ipynb#3fa4c09e", "not written by a person"],
    ),
    "two notebooks with one module": (
        data(
            lambda nb: nb["metadata"]["annotated"].update(module="annotated.data"),
            "01_model",
        ),
        ["01_model.ipynb", "annotated.data", "a_data.ipynb"],
    ),
    "module outside the package": (
        data(lambda nb: nb["metadata"]["annotated"].update(module="os")),
        ["a_data.ipynb", "annotated.NAME"],
    ),
    "module and no exported cell": (
        data(lambda nb: [c["metadata"].clear() for c in nb["cells"]], "01_model"),
        ["01_model.ipynb", "no exported cell"],
    ),
    "exported cell and no module": (
        data(lambda nb: nb["metadata"].clear(), "01_model"),
        ["01_model.ipynb#imports:1", "owns no module"],
    ),
    "half-written": (raw(lambda b: b[:500]), ["a_data.ipynb:1", "half-written"]),
    "empty file": (raw(lambda b: b""), ["a_data.ipynb:1", "not valid JSON"]),
    "not UTF-8": (raw(lambda b: b[:50] + b"\xff" + b[50:]), ["a_data.ipynb", "UTF-8"]),
    "no notebook": (raw(lambda b: b"[]"), ["a_data.ipynb", "damaged"]),
    "nested without end": (raw(lambda b: b"[" * 99999), ["a_data.ipynb", "JSON"]),
    "notebook of an old format": (
        data(lambda nb: nb.update(nbformat=3)),
        ["a_data.ipynb", "format 4"],
    ),
    "cells are missing": (data(lambda nb: nb.pop("cells")), ["a_data.ipynb", "cells"]),
    "source is no text": (
        data(lambda nb: nb["cells"][2].update(source=3)),
        ["a_data.ipynb", "cell 3's source"],
    ),
    "listed and missing": (
        lambda book: book.path("a_data").unlink(),
        ["a_data.ipynb", "does not exist"],
    ),
    "there and not listed": (
        lambda book: (book.listed.pop(), book.list_pages()),
        ["01_model.ipynb", "not in _toc.yml"],
    ),
    "listed twice": (
        lambda book: (book.listed.append("a_data"), book.list_pages()),
        ["_toc.yml", "twice"],
    ),
    "broken _toc.yml": (file("_toc.yml", "a: [\nb: }"), ["_toc.yml:2", "YAML"]),
    "a module that no notebook writes": (
        file("src/annotated/extra.py", "x = 1\n"),
        ["src/annotated/extra.py", "no notebook writes"],
    ),
}


@pytest.mark.parametrize("tangled", [False, True], ids=["new", "tangled"])
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_one_line_and_changes_nothing(
    book: Any, name: str, tangled: bool
) -> None:
    edit, expected = FAULTS[name]
    if tangled:
        assert book.run().code == 0
    edit(book)
    for command in [()] + [("--check",), ("--back",)] * tangled:
        line = book.refuses(*command)
        for part in expected:
            assert part in line


def test_nesting_too_deep_is_a_fault(book: Any) -> None:
    for deep in ("-" * 5000 + "1", "math" + ".pi" * 900 + "()", "[" * 150 + "]" * 150):
        book.put("a_data", "limit", f"LIMIT = {deep}\ndef root(x):\n    return x")
        if deep[0] != "[":
            assert "notebooks/a_data.ipynb#limit:1" in book.refuses()
        else:
            assert book.run().code == 0


def test_a_folder_in_the_place_of_a_module(book: Any) -> None:
    book.module("model").mkdir(parents=True)
    assert "model.py" in book.refuses()


def test_outside_a_book(book: Any, tmp_path: Any) -> None:
    (tmp_path / "_toc.yml").unlink()
    assert "_toc.yml: is missing" in book.refuses()


def test_names_of_an_unknown_notebook(book: Any) -> None:
    assert "notebooks/b.ipynb" in book.refuses("notebooks/b.ipynb")
