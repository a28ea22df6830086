"""The book's own notebooks and package agree."""

import subprocess
import sys
from pathlib import Path

import pytest

from tangle.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [["--check"], ["normalise", "--check"]])
def test_nothing_is_out_of_date(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*command, "--root", str(ROOT)])
    output = capsys.readouterr()
    assert status == 0, output.out + output.err


def test_tangle_stands_on_its_own() -> None:
    imported = "import sys, tangle.__main__; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", imported], capture_output=True, text=True, timeout=20
    )
    assert result.stdout == "False\n", result.stderr
