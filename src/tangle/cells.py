"""What an exported cell may hold.

Importing a module must define things and do nothing else. So at the top level of an
exported cell stand only imports, `def`, `class`, assignments to plain names, and
docstrings. A loop, an `if`, a `del`, a call for its effect would run on import.
In an assignment, a call builds a constant: it calls a class (`Config(...)`, a name that
begins with a capital), a function known to have no effects (`BUILDS` lists them), or a
method of what a literal or such a call gives (`"a b".split()`). In a class body the
statements follow the same rule.

Imports have cells of their own. They move to the top of the module, so from a cell that
mixed them with code `tangle --back` could not find its way back.
"""

import ast
import re
import warnings
from collections.abc import Iterable

from tangle.files import fail
from tangle.notebooks import Cell

MAGIC = re.compile(r"([%!?]|[\w, ]+=\s*[%!]).*|.*\?")
MARKER = "# %% "
BUILDS = re.compile(
    r"""([\w.]+\.)?_*[A-Z]\w*  # a class: Config, alt.Scale
    | .*[])}'"]\.\w+  # a method of a literal, or of what another call has built
    | abs|bool|bytes|chr|dict|enumerate|filter|float|frozenset|int|len|list|map|max|min
    | object|ord|range|reversed|round|set|slice|sorted|str|sum|tuple|type|zip
    | (collections|dataclasses|functools|itertools|math|operator|types|typing)\.\w+
    | (dataclass|field|partial|replace|attrgetter|itemgetter|namedtuple|cache|lru_cache)
    | re\.(compile|escape) | (np|torch)\.(array|tensor|arange|dtype|device|finfo|iinfo)
    """,
    re.VERBOSE,
)


def parse_cell(cell: Cell) -> list[ast.stmt]:
    """The statements of an exported cell, all of them fit for export."""
    for number, line in enumerate(cell.source.split("\n"), 1):
        for character in line.replace("\t", ""):
            if not character.isprintable():
                fail(
                    cell.at(number),
                    f"holds the invisible character {character!a}: delete it, or "
                    "write it as an escape",
                )
        if line.startswith(MARKER):
            fail(cell.at(number), "looks like one of tangle's markers: reword the line")
    body = parse_python(cell.source)
    if isinstance(body, SyntaxError):
        lines = cell.source.split("\n")
        number = min(body.lineno or 1, len(lines))
        line = lines[number - 1].strip()
        if MAGIC.fullmatch(line):
            what = f"`{line}` is a magic, not Python"
            fail(cell.at(number), f"{what}: move it to a cell without an export tag")
        fail(cell.at(number), f"syntax error ({body.msg}): correct it")
    try:
        for statement in body:
            _check_statement(cell, statement)
    except RecursionError:
        fail(cell.at(1), "is nested too deeply to read: give its parts names")
    kinds = {isinstance(statement, ast.Import | ast.ImportFrom) for statement in body}
    if len(kinds) > 1:
        first = next(s for s in body if isinstance(s, ast.Import | ast.ImportFrom))
        fail(
            cell.at(first.lineno),
            "imports and code share this cell: give the imports an exported cell of "
            "their own, so that `tangle --back` stays exact",
        )
    return body


def parse_python(source: str) -> list[ast.stmt] | SyntaxError:
    """The statements, or what keeps Python from compiling them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(source).body
            compile(source, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(f"Python cannot read it: {error}")
    return body


def is_import_cell(body: list[ast.stmt]) -> bool:
    """Whether the cell is there for its imports alone, and so leaves no body."""
    return bool(body) and isinstance(body[0], ast.Import | ast.ImportFrom)


def _check_statement(cell: Cell, statement: ast.stmt) -> None:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return
        case ast.Import() | ast.ImportFrom():
            return
        case ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.ClassDef(body=body):
            for inner in body:
                _check_class_statement(cell, inner)
            return
        case ast.Assign(targets=targets, value=value) if _are_names(targets):
            _check_value(cell, value)
            return
        case ast.AnnAssign(target=ast.Name(), value=ast.expr() as value):
            _check_value(cell, value)
            return
    fail(
        cell.at(statement.lineno),
        f"`{_quote(statement)}` would run when the module is imported: move it to a "
        "cell without an export tag, or into a function",
    )


def _check_class_statement(cell: Cell, statement: ast.stmt) -> None:
    match statement:
        case ast.Pass() | ast.AnnAssign(target=ast.Name()):
            return
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Assign(targets=targets) if _are_names(targets):
            return
    _check_statement(cell, statement)


def _are_names(targets: Iterable[ast.expr]) -> bool:
    return all(
        isinstance(node, ast.Name)
        or (isinstance(node, ast.Tuple | ast.List) and _are_names(node.elts))
        for node in targets
    )


def _check_value(cell: Cell, value: ast.expr) -> None:
    pending: list[ast.AST] = [value]
    while pending:
        node = pending.pop()
        if not isinstance(node, ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and not BUILDS.fullmatch(ast.unparse(node.func)):
            fail(
                cell.at(node.lineno),
                f"`{_quote(node)}` would be called when the module is imported: build "
                "constants from literals and classes; put work into a function",
            )


def _quote(node: ast.AST) -> str:
    line = ast.unparse(node).partition("\n")[0]
    return line if len(line) <= 40 else line[:37] + "..."
