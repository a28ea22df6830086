"""`annotated ARGUMENTS`, process 1 killed before batch 11 of the training."""

import os
import signal
import sys
from collections.abc import Iterator

from annotated import language
from annotated.cli import main
from annotated.parallel import Batch
from annotated.tokens import Packed


class Mortal(Packed):
    """Batches during which a process is killed."""

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches."""
        for number, batch in enumerate(super().epoch(n, start)):
            if self.shuffle and number == 11 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


if __name__ == "__main__":
    language.Packed = Mortal  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
