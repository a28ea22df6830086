"""Names and imports, compared with those who know: Python's compiler, and ruff."""

import ast
import random
import subprocess
import symtable
import sys
from pathlib import Path
from typing import Any

import pytest

from tangle.imports import Import, all_key, render_imports
from tangle.names import used_names


def uses(source: str, **options: bool) -> set[tuple[str, int, bool]]:
    found = [u for s in ast.parse(source).body for u in used_names(s, **options)]
    return {(use.name, use.line, use.late) for use in found}


def global_names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """The names that Python's compiler looks up in the module; and class attributes."""
    found, attributes = set(), set()
    for symbol in table.get_symbols():
        if table.get_type() == "class" and symbol.is_local():
            attributes.add(symbol.get_name())
        used = symbol.is_referenced() or (
            table.get_type() != "module" and symbol.is_declared_global()
        )
        if used and (table.get_type() == "module" or symbol.is_global()):
            found.add(symbol.get_name())
    for child in table.get_children():
        names, more = global_names(child)
        found |= names
        attributes |= more
    return found, attributes


LIBRARY = Path(ast.__file__).parent
MODULES = ["ast", "typing", "dataclasses", "enum", "inspect", "argparse", "functools"]
MODULES += ["asyncio/tasks", "collections/__init__", "logging/__init__", "tarfile"]
MODULES += ["test/test_named_expressions", "test/test_patma"]


@pytest.mark.parametrize("name", MODULES)
def test_the_compiler_finds_the_same_names(name: str) -> None:
    path = LIBRARY / f"{name}.py"
    if not path.exists():
        pytest.skip("this Python comes without its test suite")
    source = path.read_text(encoding="utf-8")
    ours = {name for name, _, _ in uses(source)}
    theirs, attributes = global_names(symtable.symtable(source, str(path), "exec"))
    assert theirs <= ours
    assert ours - theirs <= attributes  # `x = x` in a class reads the module's x


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = y", {("y", 1, False)}),
        ("def f(a=b, *c: d):\n    return a, e", {("b", 1, False), ("d", 1, False),
                                                ("e", 2, True)}),
        ("@a(b)\ndef f(): pass", {("a", 1, False), ("b", 1, False)}),
        ("class A(B, m=C):\n    x = y\n    z = x", {("B", 1, False), ("C", 1, False),
                                                   ("y", 2, False)}),
        ("class A:\n    x = 1\n    def f(self): return x", {("x", 3, True)}),
        ("class A:\n    def f(self): return __class__", set()),
        ("class A:\n    x = 1\n    y = [x for _ in x]", {("x", 3, False)}),
        ("class A:\n    x = x", {("x", 2, False)}),
        ("y = [i + n for i in xs if i]", {("n", 1, False), ("xs", 1, False)}),
        ("f = lambda a, b=c: a + d", {("c", 1, False), ("d", 1, True)}),
        ("def f():\n    global n\n    n = 1", {("n", 3, True)}),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2", set()),
        ("def f(a):\n    if (n := a): pass\n    return [m := i for i in n], m", set()),
        ("def f(a):\n    match a:\n        case [x, *y]: return x, y\n"
         "        case {'k': z, **w}: return z, w\n        case P() as p: return p",
         {("P", 5, True)}),
        ("def f():\n    try: pass\n    except E as e: return e", {("E", 3, True)}),
        ("def f():\n    import os.path, re as r\n    return os, r", set()),
        ('def f(x: Float[Tensor, "batch d"]): pass', {("Float", 1, False),
                                                     ("Tensor", 1, False)}),
        ('def f(x: "Vectors") -> "A[B] | None": pass', {("Vectors", 1, True),
                                                      ("A", 1, True), ("B", 1, True)}),
        ('def f(x: "batch d"): pass', set()),
        ("def f():\n    x: T = 1\n    return x", {("T", 2, True)}),
    ],
)  # fmt: skip
def test_scopes(source: str, expected: Any) -> None:
    assert uses(source) == expected


def test_annotations_that_nobody_evaluates() -> None:
    late = uses("def f(a: B = C) -> D: pass", late_annotations=True)
    assert late == {("B", 1, True), ("C", 1, False), ("D", 1, True)}


def test_ruff_agrees_with_the_order_of_imports(tmp_path: Path) -> None:
    chance = random.Random(0)
    modules = ["math", "os.path", "__future__", "torch", "torch.nn.functional", "numpy"]
    modules += ["annotated.data", "annotated.word2vec", "collections.abc", "Zope", "a2"]
    modules += ["a10", "tqdm", "_weird", "annotated"]
    names = [
        "Tensor",
        "nn",
        "F",
        "LIMIT",
        "A1",
        "data10",
        "data2",
        "_x",
        "Zz",
        "aB",
        "T",
    ]
    names += [
        "a_rather_long_name_that_fills_the_line",
        "AnotherLongNameThatFillsTheLine",
    ]
    for number in range(60):
        chosen = set()
        for _ in range(chance.randrange(1, 25)):
            module = chance.choice(modules)
            if module == "__future__":
                chosen.add(Import(module, "annotations", None))
                continue
            name = chance.choice([None, *names])
            alias = chance.choice([None, None, None, "alias", "Other"])
            chosen.add(Import(module, name, alias))
        block = render_imports(chosen) + "\n\nx = 1\n"
        (tmp_path / f"n{number}.py").write_text(block)
    exported = sorted([*names, "B2", "b10", "b2", "CamelCase"], key=all_key)
    listing = ", ".join(f'"{name}"' for name in exported)
    (tmp_path / "exported.py").write_text(f"__all__ = [\n    {listing},\n]\n")
    settings = 'lint.isort.known-first-party = ["annotated", "tangle"]'
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    command += ["--select=I,RUF022", "--preview", "--config", settings, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr
