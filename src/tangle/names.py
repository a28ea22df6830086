"""Which names a piece of Python binds, and which it uses and does not bind itself.

The rules are Python's own: a function sees the scopes around it, but not a class's; the
first iterable of a comprehension belongs outside it, the rest inside; decorators,
defaults and annotations belong to the scope in which the `def` stands. A string inside
an annotation (`Float[Tensor, "batch d"]`) is data. An annotation that is a string as a
whole (`"Vectors"`) is code that nobody runs on import.
"""

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)
COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.TryStar, ast.Match)


@dataclass(frozen=True)
class Use:
    """A name that must come from the module. Late: not before a function is called."""

    name: str
    line: int
    late: bool


@dataclass
class Scope:
    node: ast.AST
    bound: set[str]
    declared_global: set[str] = field(default_factory=set)


def own_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a scope, without those of the scopes inside it."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, COMPREHENSIONS):  # a walrus inside binds outside
            walrus = (n for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
            stack.extend(n.target for n in walrus)
        elif not isinstance(node, SCOPES):
            stack.extend(ast.iter_child_nodes(node))


def bound_names(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """The names that these statements bind in their own scope, and at which line."""
    names: dict[str, int] = {}
    for node in own_nodes(nodes):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                pass
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                pass
            case ast.MatchMapping(rest=str(name)) | ast.alias(asname=str(name)):
                pass
            case ast.alias(name=dotted):
                name = dotted.partition(".")[0]
            case _:
                continue
        names.setdefault(name, getattr(node, "lineno", 1))
    return names


def used_names(statement: ast.stmt, late_annotations: bool = False) -> list[Use]:
    """The names that a statement of a module looks up in the module, in its order.

    `late_annotations`: the module says `from __future__ import annotations`.
    """
    walker = _Walker(late_annotations)
    walker.visit(statement)
    return walker.uses


class _Walker(ast.NodeVisitor):
    def __init__(self, late_annotations: bool) -> None:
        self.late_annotations = late_annotations
        self.uses: list[Use] = []
        self.scopes: list[Scope] = []

    def look_up(self, name: str, line: int) -> None:
        for depth, scope in enumerate(reversed(self.scopes)):
            if isinstance(scope.node, ast.ClassDef) and depth > 0:
                if name == "__class__":
                    return
            elif name in scope.declared_global:
                break
            elif name in scope.bound:
                return
        late = any(isinstance(scope.node, FUNCTIONS) for scope in self.scopes)
        self.uses.append(Use(name, line, late))

    @contextmanager
    def scope(
        self, node: ast.AST, body: list[ast.stmt], bound: set[str]
    ) -> Iterator[Scope]:
        nodes = list(own_nodes(body))
        outer = {name for n in nodes if isinstance(n, ast.Nonlocal) for name in n.names}
        world = {name for n in nodes if isinstance(n, ast.Global) for name in n.names}
        scope = Scope(node, bound - outer - world, world)
        self.scopes.append(scope)
        yield scope
        self.scopes.pop()

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        scope = self.scopes[-1] if self.scopes else None
        if not isinstance(node.ctx, ast.Store) or (
            scope and node.id in scope.declared_global
        ):
            self.look_up(node.id, node.lineno)

    def visit_annotation(self, node: ast.expr | None) -> None:
        if node is None:
            return
        before, late, line = len(self.uses), self.late_annotations, node.lineno
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                quoted = ast.parse(node.value.strip(), mode="eval").body
            except (SyntaxError, ValueError):
                return
            ast.increment_lineno(quoted, line - 1)
            node, late = quoted, True
        self.visit(node)
        if late:
            self.uses[before:] = [replace(use, late=True) for use in self.uses[before:]]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit_annotation(node.annotation)
        self.visit_all([node.value, node.target])

    def visit_arguments(self, node: ast.arguments) -> None:
        self.visit_all([*node.defaults, *node.kw_defaults])
        for arg in _arguments(node):
            self.visit_annotation(arg.annotation)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit_all(node.decorator_list)
        self.visit_arguments(node.args)
        self.visit_annotation(node.returns)
        bound = {arg.arg for arg in _arguments(node.args)} | set(bound_names(node.body))
        with self.scope(node, node.body, bound):
            self.visit_all(node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit_arguments(node.args)
        bound = {arg.arg for arg in _arguments(node.args)} | set(
            bound_names([node.body])
        )
        with self.scope(node, [], bound):
            self.visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.decorator_list, *node.bases, *node.keywords])
        with self.scope(node, node.body, {"__module__", "__qualname__"}) as scope:
            for statement in node.body:  # a class body binds as it goes
                bound = set(bound_names([statement])) - scope.declared_global
                if isinstance(statement, COMPOUND):
                    scope.bound |= bound
                self.visit(statement)
                scope.bound |= bound

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, COMPREHENSIONS):
            super().generic_visit(node)
            return
        first, *rest = node.generators
        self.visit(first.iter)
        bound = set(bound_names(generator.target for generator in node.generators))
        with self.scope(node, [], bound):
            self.visit_all([first.target, *first.ifs, *rest])
            if isinstance(node, ast.DictComp):
                self.visit_all([node.key, node.value])
            else:
                self.visit(node.elt)


def _arguments(node: ast.arguments) -> list[ast.arg]:
    named = [*node.posonlyargs, *node.args, *node.kwonlyargs]
    return named + [arg for arg in (node.vararg, node.kwarg) if arg is not None]
