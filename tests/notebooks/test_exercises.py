"""Exercises: their form, and that a check takes right answers and refuses wrong ones.

That each check takes the answer of the book's solution is shown where the notebooks
run: a solution ends by calling its check. Here, without running a chapter, the checks
that need only its module meet answers that readers would give.
"""

import ast
import importlib
import math
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
GRADES = {"warm-up", "practice", "project"}
EXERCISE = re.compile(
    r"^> \*\*Exercise (\d+)\*\* \(([\w-]+), [\w ]*(?:minutes|hour|afternoon)\) \S", re.M
)
# Arguments of a check, as a reader would write them: others' forms of the right answer.
RIGHT = {
    ("01_word2vec", 1): ["4.16", "torch.tensor(4.1589)", "-6 * math.log(0.5)"],
    ("01_word2vec", 2): ["lambda m: 1 + m", "lambda m: 2 * sum(range(m + 1)) / m"],
    ("02_seq2seq", 1): ["2", "2.0", "torch.tensor(0.5 * math.log(4)).exp()"],
    ("02_seq2seq", 2): [
        "lambda d, h: 3 * h * (d + h + 2), lambda d, h: 4 * h * (d + h + 2)",
    ],
    ("02_seq2seq", 4): ["{8: 7.0, 16: 18, 32: 30.0, 128: 60.0}"],
    ("02_seq2seq", 6): ["0.1, 0.2, 1.0"],
    ("03_attention", 1): ["1, 1097", "1.0, math.exp(7)"],
    ("03_attention", 2): ["True, True, False", "1, 1, 0"],
    ("04_transformer", 1): ["0, 3.16", "0.0, math.sqrt(10)"],
    ("04_transformer", 2): ["-1, -1.0"],
    ("04_transformer", 3): ["torch.ones(1, 6) > 0", "causal(6)[-1:]", "causal(6)[5]"],
    ("04_transformer", 6): ["torch.eye(6), 50 * torch.eye(6).roll(1, 0)"],
    ("05_modern", 1): ["44", "44.0"],
}
WRONG = {
    ("01_word2vec", 1): ["math.log(2)", "5 * math.log(2)", "6", "0"],
    ("01_word2vec", 2): ["lambda m: 2 * m", "lambda m: (m + 1) / 2", "lambda m: m"],
    ("02_seq2seq", 1): ["2.5", "1.6", "math.log(2)", "0", "4"],
    ("02_seq2seq", 2): [
        "lambda d, h: 3 * h * (d + h), lambda d, h: 4 * h * (d + h)",
        "lambda d, h: 3 * h * (d + h + 1), lambda d, h: 4 * h * (d + h + 1)",
        "lambda d, h: 3 * h * (d + h + 2), lambda d, h: 3 * h * (d + h + 2)",
    ],
    ("02_seq2seq", 3): [
        "lambda x, h, a, b: gru_step(x, h, a, b, *2 * [0 * a[:, 0]]), torch.eye(4)",
    ],
    ("02_seq2seq", 4): ["{8: 60, 32: 30, 128: 60}", "{8: 1, 32: 2, 128: 9}", "{8: 1}"],
    ("02_seq2seq", 6): ["0.1, 0.9, 1.0", "0.1, 0.1, 0.3", "12, 15, 98"],
    ("03_attention", 1): ["1, 7", "math.exp(7), math.exp(7)", "7, 1", "0, 1097"],
    ("03_attention", 2): ["True, True, True", "True, False, False", "0, 1, 0"],
    ("03_attention", 3): [
        "AdditiveScore(4, 4, 4), ProductScore(4, 4, False)",
        "ProductScore(4, 4, False), ProductScore(4, 4, True)",
    ],
    ("04_transformer", 1): ["0, 10", "3, 3.16", "0, 3"],
    ("04_transformer", 2): ["1, -1", "-1, 1", "-5, -1", "-1, -2"],
    ("04_transformer", 3): [
        "torch.ones(1, 5).bool()", "causal(6)", "torch.ones(1, 6)",
        "torch.eye(6)[-1:].bool()",
    ],
    ("04_transformer", 6): [
        "torch.eye(6), torch.eye(6).roll(1, 0)", "torch.eye(6), 50 * torch.eye(6)",
        "torch.eye(5), 50 * torch.eye(5)", "torch.eye(6), 50 * torch.eye(6).roll(1, 1)",
    ],
    ("05_modern", 1): ["22", "6", "0", "2 * math.pi"],
    ("05_modern", 3): ["lambda first, too: torch.zeros(6, 8)"],
    ("05_modern", 5): ["GatedFeedForward(2, 2)", "GatedFeedForward(2, 2, 'sigmoid')"],
    ("05_modern", 6): [
        "lambda a, b: (torch.maximum(a[0], b[0]), a[1] + b[1], a[2] + b[2])",
        "lambda a, b: tuple(x + y for x, y in zip(a, b))",
    ],
}  # fmt: skip


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> list[nbformat.NotebookNode]:
    """All cells of a chapter."""
    return list(nbformat.read(request.param, as_version=4).cells)


def exercises(chapter: list[nbformat.NotebookNode]) -> list[tuple[int, int, str]]:
    """Place of the cell, number and grade of each exercise."""
    return [
        (place, int(match[1]), match[2])
        for place, cell in enumerate(chapter)
        if cell.cell_type == "markdown"
        for match in EXERCISE.finditer(cell.source)
    ]


def test_a_chapter_has_six_exercises_in_three_grades(
    chapter: list[nbformat.NotebookNode],
) -> None:
    """Every exercise says its grade and its time; none is left out of the count."""
    found = exercises(chapter)
    quotes = sum(cell.source.count("**Exercise ") for cell in chapter)
    assert [number for _, number, _ in found] == list(range(1, quotes + 1))
    assert len(found) >= 6
    assert {grade for *_, grade in found} == GRADES


def test_an_exercise_is_followed_by_its_check_and_its_solution(
    chapter: list[nbformat.NotebookNode],
) -> None:
    """The check only defines; the solution is hidden and ends by calling it."""
    for place, number, _ in exercises(chapter):
        name = f"check_{number}"
        check, solution = chapter[place + 1 : place + 3]
        assert (check.id, solution.id) == (f"check-{number}", f"solution-{number}")

        (function,) = ast.parse(check.source).body
        assert isinstance(function, ast.FunctionDef)
        assert function.name == name
        assert ast.get_docstring(function)
        wanted = len(function.args.args) - len(function.args.defaults)
        answers = "answer" if wanted == 1 else "answers"
        call = f"# {name}({', '.join(['...'] * wanted)})  # take the first # away, and "
        assert check.source.splitlines()[-1] == f"{call}put your {answers} in"
        assert check.outputs == []

        assert "hide-cell" in solution.metadata.tags
        last = ast.parse(solution.source).body[-1]
        assert isinstance(last, ast.Expr)
        assert isinstance(last.value, ast.Call)
        assert ast.unparse(last.value.func) == name
        said = "".join(output.get("text", "") for output in solution.outputs)
        assert "Right." in said.splitlines()[-1], f"execute {solution.id} anew"


def answered(name: str, number: int, arguments: str) -> None:
    """Call a chapter's check, with nothing defined but what its module has."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    module = importlib.import_module(book.metadata.annotated.module)
    names: dict[str, Any] = vars(module) | {"math": math}
    (source,) = (cell.source for cell in book.cells if cell.id == f"check-{number}")
    exec(source, names)
    eval(f"check_{number}({arguments})", names)


def cases(table: dict[tuple[str, int], list[str]]) -> list[tuple[str, int, str]]:
    """Give each answer its row."""
    return [(*where, answer) for where, answers in table.items() for answer in answers]


@pytest.mark.parametrize(("name", "number", "arguments"), cases(RIGHT))
def test_takes_a_right_answer(
    name: str, number: int, arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answer in other words."""
    answered(name, number, arguments)
    assert "Right." in capsys.readouterr().out


@pytest.mark.parametrize(("name", "number", "arguments"), cases(WRONG))
def test_refuses_a_wrong_answer_with_a_hint(
    name: str, number: int, arguments: str
) -> None:
    """A sentence says what to look at."""
    with pytest.raises(AssertionError, match=r"\w+ \w+"):
        answered(name, number, arguments)
