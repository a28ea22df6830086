"""The one kind of error that a user sees, and writing files all or nothing."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn


class TangleError(Exception):
    """What is wrong, where, and what to do about it, in one line."""


def fail(where: str, message: str) -> NoReturn:
    """Stop: `where` is a file, a cell (`file#cell`) or a line (`file#cell:3`)."""
    line = " ".join(f"{where}: {message}".split())
    raise TangleError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def write_all(contents: Mapping[Path, str | None]) -> list[Path]:
    """Give each file its new text; None removes it. Return the paths that changed.

    All texts go to temporary files first, so that a full disk or a folder without
    write permission is met before the first file is replaced.
    """
    changed = [path for path, text in contents.items() if text != read_text(path)]
    temporary: dict[Path, Path] = {}
    try:
        for path in changed:
            text = contents[path]
            if text is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary[path] = path.with_name(f".{path.name}.{os.getpid()}.part")
                temporary[path].write_bytes(text.encode())
        for path in changed:
            if path in temporary:
                os.replace(temporary[path], path)
            else:
                path.unlink()
    finally:
        for part in temporary.values():
            part.unlink(missing_ok=True)
    return changed


def read_text(path: Path) -> str | None:
    """The file's text, no newline translated; None if there is no such file."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        fail(str(path), f"is not UTF-8 text (byte {error.start}): restore it from git")
