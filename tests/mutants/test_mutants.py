"""The bugs of benchmarks/mutants.py still fit the package; the command runs them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    """The runner."""
    spec = importlib.util.spec_from_file_location(
        "mutants", ROOT / "benchmarks" / "mutants.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


def test_every_bug_fits_the_package(mutants: ModuleType) -> None:
    """Each changes its module once, and what comes out is Python."""
    for mutant in mutants.MUTANTS:
        text = (mutants.PACKAGE / f"{mutant.module}.py").read_text(encoding="utf-8")
        changed = mutant.apply(text)
        assert changed != text
        compile(changed, mutant.bug, "exec")


def test_every_pitfall_of_the_chapters_has_a_bug(mutants: ModuleType) -> None:
    """All those of the Transformers, old and modern, their training and decoding."""
    wanted = {*range(1, 18), 22, 31, 32, 33}
    assert {mutant.pitfall for mutant in mutants.MUTANTS} == wanted
    bugs = [mutant.bug for mutant in mutants.MUTANTS]
    assert len(set(bugs)) == len(bugs)


def test_a_bug_that_no_longer_fits_is_an_error(mutants: ModuleType) -> None:
    """With what to do."""
    mutant = mutants.Mutant(1, "nothing", "no such text", "")
    with pytest.raises(SystemExit, match="0 places that read `no such text`"):
        mutant.apply("some text")
