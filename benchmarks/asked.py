"""How a benchmark begins and ends: settings from the command line, a last sentence."""

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import tyro

from annotated.data import DataError
from annotated.records import repository

Settings = TypeVar("Settings")


def ask(
    settings: type[Settings],
    report: Callable[[Settings], object],
    help_text: str | None,
    interrupted: str = "nothing was written",
) -> int:
    """Measure and report; a problem ends with a sentence and an exit code.

    Paths that have a default start at the repository's root.
    """
    asked = tyro.cli(settings, description=help_text)
    root = repository() or Path.cwd()
    rooted = [f.name for f in fields(asked) if isinstance(f.default, Path)]
    paths = {name: root / getattr(asked, name) for name in rooted}
    try:
        report(replace(asked, **paths))
    except DataError as error:
        print(f"benchmark: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        return 130
    return 0
