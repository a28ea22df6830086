"""Work in a process of its own, for what a whole process shares.

How the C library handles freed memory is such a thing: who changes it for one program
changes it for all in the process.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from annotated.data import DataError


def serve(
    pipe: Connection, prepare: Callable[..., Any], inputs: tuple[Any, ...]
) -> None:
    """Prepare, then do the work each time that somebody asks."""
    work = prepare(*inputs)
    while pipe.recv():
        pipe.send(work())


class Apart:
    """Does elsewhere, and one at a time, what `prepare(*inputs)` gives to do."""

    def __init__(self, prepare: Callable[..., Any], *inputs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, prepare, inputs)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other.close()  # so that its end is noticed here

    def __call__(self) -> Any:
        """The work, done once more."""
        try:
            self.pipe.send(True)
            return self.pipe.recv()
        except (EOFError, OSError):
            raise DataError(
                "a peer's process ended before its work was done; what it printed "
                "says why"
            ) from None

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
