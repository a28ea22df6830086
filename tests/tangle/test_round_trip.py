"""What holds for every book, tried on books that hypothesis makes up."""

import json
import textwrap
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NewBook = Callable[[], Any]
QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)

printable = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
words = st.text(printable, max_size=12)
plain = st.text("ab c#%é注", max_size=12)
numbers = st.integers(-9, 9)


@st.composite
def bodies(draw: Any) -> str:
    """Some statements for the body of a function."""
    lines = draw(
        st.lists(
            st.one_of(
                words.map(lambda w: f"# {w}"),
                words.map(lambda w: f"y = {w!r}"),
                plain.map(lambda w: f"y = '''{w}\n# % {w}\n\n  {w}'''"),
                numbers.map(
                    lambda n: f"for i in range({n}):\n    y = [i for _ in 'ab']"
                ),
                st.just("\n"),
            ),
            max_size=4,
        )
    )
    return textwrap.indent("\n".join([*lines, "return x"]), "    ")


@st.composite
def sources(draw: Any, number: int) -> str:
    """The source of an exported cell that defines names with this number."""
    parts = draw(
        st.lists(
            st.one_of(
                words.map(lambda w: f"# {w}"),
                numbers.map(lambda n: f"VALUE_{{}} = {n}"),
                words.map(lambda w: f"_text_{{}} = ({w!r},\n    2)"),
                bodies().map(lambda b: f"def function_{{}}(x):\n{b}"),
                bodies().map(
                    lambda b: (
                        "class Class_{}:\n" + textwrap.indent(f"def m(x):\n{b}", "    ")
                    )
                ),
                st.sampled_from(["", "\n", "'''A string.'''"]),
            ),
            max_size=4,
        )
    )
    named = [p.replace("_{}", f"_{number}_{i}", 1) for i, p in enumerate(parts)]
    end = draw(st.sampled_from(["", "\n", "\n\n\n", "  ", "\n    "]))
    return "\n\n".join(named) + end


@st.composite
def notebooks(draw: Any) -> list[tuple[str, str, str]]:
    """The cells of a notebook: id, tag, source. At least one is exported."""
    tags = draw(st.lists(st.sampled_from(["export", "export-private", "", "check"])))
    cells = [
        (f"cell-{i}", tag, draw(sources(i)))
        for i, tag in enumerate(["export", *tags[:5]])
    ]
    return draw(st.permutations(cells))


def fill(book: Any, *contents: list[tuple[str, str, str]]) -> None:
    for number, cells in enumerate(contents):
        made = [
            book.code(name, source, *([tag] if tag else []), printed=f"{name}\n")
            for name, tag, source in cells
        ]
        book.add(f"n{number}", f"annotated.m{number}", *made)
    result = book.run("normalise")
    assert result.code == 0, result


@QUICK
@given(one=notebooks(), two=notebooks())
def test_there_and_back_is_the_identity(new_book: NewBook, one: Any, two: Any) -> None:
    with new_book() as book:
        fill(book, one, two)
        written = book.run()
        assert written.code == 0, written
        before = book.files()
        for command in ((), ("--check",), ("--back",), ("normalise", "--check")):
            result = book.run(*command)
            assert (result.code, result.out) == (0, "")
            assert book.files() == before


@QUICK
@given(one=notebooks())
def test_each_cell_stands_verbatim_below_its_marker(
    new_book: NewBook, one: Any
) -> None:
    with new_book() as book:
        fill(book, one)
        assert book.run().code == 0
        module = book.module("m0").read_bytes().decode()
        place = 0
        for name, tag, source in one:
            expected = f"# %% notebooks/n0.ipynb#{name}\n{source}\n"
            assert (expected in module) == tag.startswith("export")
            if tag.startswith("export"):
                place = module.index(expected, place)


@QUICK
@given(one=notebooks(), data=st.data())
def test_an_edited_line_comes_back_to_its_cell_and_no_other(
    new_book: NewBook, one: Any, data: Any
) -> None:
    with new_book() as book:
        fill(book, one)
        assert book.run().code == 0
        old = book.load("n0")
        exported = [name for name, tag, _ in one if tag.startswith("export")]
        chosen = data.draw(st.sampled_from(exported))
        lines = book.source("n0", chosen).split("\n")
        number = data.draw(st.integers(0, len(lines) - 1))
        module = book.module("m0")
        text = module.read_bytes().decode().split("\n")
        start = text.index(f"# %% notebooks/n0.ipynb#{chosen}") + 1
        text[start + number] += "  # edited"
        module.write_bytes("\n".join(text).encode())

        result = book.run("--back")
        assert result.code == 0, result
        assert result.out.startswith(f"notebooks/n0.ipynb#{chosen} ")
        assert result.out.count("\n") == 1
        lines[number] += "  # edited"
        assert book.source("n0", chosen) == "\n".join(lines)
        new = book.load("n0")
        assert old["metadata"] == new["metadata"]
        for before, after in zip(old["cells"], new["cells"], strict=True):
            if after["id"] == chosen:
                assert (after["outputs"], after["execution_count"]) == ([], None)
                assert after["metadata"] == before["metadata"]
            else:
                assert before == after
        assert module.read_bytes().decode() == "\n".join(text)
        assert book.run("--check").code == 0


@settings(QUICK, max_examples=80)
@given(data=st.data())
def test_random_bytes_in_a_notebook(new_book: NewBook, data: Any) -> None:
    with new_book() as book:
        plain = [
            ("one", "export", "X = 1"),
            ("two", "", "y = X"),
            ("f", "export", "Z = X"),
        ]
        fill(book, plain, [("g", "export", "def g():\n    return 1")])
        assert book.run().code == 0
        path = book.path("n0")
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            length = data.draw(st.sampled_from([0, 1, 1, 1, 5, 100]))
            content[at : at + length] = data.draw(st.binary(max_size=3))
        path.write_bytes(bytes(content))
        before = book.files()
        commands = (("--check",), ("normalise", "--check"))
        for command in (*commands, ("--back",), ("normalise",), ()):
            result = book.run(*command)
            after = book.files()
            if result.code == 2:
                assert result.err.count("\n") == 1
            if result.code or command in commands:
                assert after == before
            before = after


@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_random_edits_of_a_module_come_back_exactly_or_not_at_all(
    new_book: NewBook, data: Any
) -> None:
    with new_book() as book:
        fill(
            book,
            [("one", "export", "X = 1"), ("two", "export", "def f():\n    return X")],
        )
        assert book.run().code == 0
        module = book.module("m0")
        lines = module.read_text().split("\n")
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(lines) - 1))
            new = data.draw(
                st.sampled_from([*lines, "import os", "y = 2", "    z = 3"])
            )
            lines[at : at + data.draw(st.integers(0, 2))] = [new]
        module.write_text("\n".join(lines))
        before, edited = book.files(), "\n".join(lines)
        result = book.run("--back")
        if result.code:
            assert (result.code, result.err.count("\n")) == (2, 1)
            assert book.files() == before
        else:
            assert book.run("--check").code == 0
            body = edited[edited.index("# %%") :]
            assert module.read_text().endswith(body)


def test_the_bytes_of_a_notebook_that_back_does_not_touch(book: Any) -> None:
    assert book.run("normalise").code == 0
    assert book.run().code == 0
    before = book.path("a_data").read_text()
    module = book.module("data")
    module.write_text(module.read_text().replace("size // 2", "size // 3"))
    assert book.run("--back").code == 0
    after = book.path("a_data").read_text()
    data = json.loads(before)
    cell = next(c for c in data["cells"] if c["id"] == "config")
    cell["source"][-1] = cell["source"][-1].replace("// 2", "// 3")
    cell["outputs"], cell["execution_count"] = [], None
    assert (
        after == json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )
