"""Which cells were changed, as the tests' last lines tell it."""

import subprocess
from pathlib import Path
from typing import Any

from tangle.changes import uncommitted, untangled


def git(root: Path, *words: str) -> None:
    """Run git as nobody in particular."""
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def test_a_changed_cell_is_named_before_and_after_it_is_tangled(book: Any) -> None:
    root, changed = book.root, ["notebooks/a_data.ipynb#limit"]
    assert book.run().code == 0
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    assert untangled(root) == uncommitted(root) == []
    book.put("a_data", "limit", book.source("a_data", "limit") + "  # a word more")
    assert untangled(root) == changed
    assert uncommitted(root) == []
    assert book.run().code == 0
    assert untangled(root) == []
    assert uncommitted(root) == changed


def test_a_fault_is_told_and_a_folder_without_git_has_no_changes(book: Any) -> None:
    assert book.run().code == 0
    book.put("a_data", "limit", "LIMIT = missing\nroot = math.sqrt")
    (fault,) = untangled(book.root)
    assert "notebooks/a_data.ipynb#limit" in fault
    assert "missing" in fault
    assert uncommitted(book.root) == []
