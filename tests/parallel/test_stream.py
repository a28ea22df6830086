"""Files too large to be loaded: the same batches, from flat memory, from any place."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from annotated.parallel import Batch, Batches, StreamedPairs
from annotated.subwords import Words

LINES = 700
MILLION = """
import resource, sys
from pathlib import Path
from annotated.parallel import StreamedPairs


class Numbers:
    def encode(self, text): return [3] * len(text.split())
    def encode_all(self, lines): return [self.encode(line) for line in lines]
    def decode(self, ids): return ""
    def pieces(self, ids): return []
    def save(self, path): pass
    def __len__(self): return 100


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


folder = Path(sys.argv[1])
numbers = Numbers()
files = folder / "big.en", folder / "big.de"
stream = StreamedPairs(files, (numbers, numbers), tokens=8192, pool=20_000)
pairs, early = 0, 0
for batch in stream.epoch(0):
    pairs += len(batch.source)
    if not early and stream.place[0] == 5:
        early = peak()
print(pairs, early, peak(), stream.place[0])
"""


def write(folder: Path, lines: int, name: str = "big") -> tuple[Path, Path]:
    """Two parallel files in which line i says i, in four to seven words."""
    files = folder / f"{name}.en", folder / f"{name}.de"
    with open(files[0], "w") as source, open(files[1], "w") as target:
        for i in range(lines):
            source.write(f"n{i}" + " one" * (3 + i % 3) + "\n")
            target.write(f"n{i}" + " ein" * (3 + i % 4) + "\n")
    return files


@pytest.fixture
def stream(tmp_path: Path) -> StreamedPairs:
    """A stream of seven pools."""
    files = write(tmp_path, LINES)
    words = tuple(Words.learn(path.read_text().splitlines()) for path in files)
    return StreamedPairs(files, words, tokens=100, pool=100, seed=3)


def same(one: list[Batch], other: list[Batch]) -> bool:
    """Whether two rows of batches are equal to the last id."""
    return len(one) == len(other) and all(
        a.equal(b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_each_pair_is_there_once(stream: StreamedPairs) -> None:
    words = stream.tokenizers[0]
    found = [
        words.decode([int(row[0])]) for batch in stream.epoch(1) for row in batch.source
    ]
    assert sorted(found) == sorted(f"n{i}" for i in range(LINES))


def test_an_epoch_is_a_function_of_seed_and_number(stream: StreamedPairs) -> None:
    first, again, second = (list(stream.epoch(n)) for n in (0, 0, 1))
    assert same(first, again)
    assert not same(first, second)


@pytest.mark.parametrize("done", [0, 1, 7, 13, 50])
def test_resumes_at_a_place_and_at_a_number(stream: StreamedPairs, done: int) -> None:
    whole = list(stream.epoch(2))
    stream.place = (0, 0)
    assert len(list(islice(stream.epoch(2), done))) == done
    pool, start = stream.place
    assert same(list(stream.epoch(2, start, pool)), whole[done:])
    assert same(list(stream.epoch(2, done)), whole[done:])


def test_after_the_last_batch_comes_nothing(stream: StreamedPairs) -> None:
    whole = list(stream.epoch(0))
    pool, start = stream.place
    assert list(stream.epoch(0, start, pool)) == []
    assert list(stream.epoch(0, len(whole) + 5)) == []
    assert list(stream.epoch(0, 0, 99)) == []


def test_one_pool_is_like_batches(stream: StreamedPairs) -> None:
    stream.pool, stream.shuffle = LINES, False
    sides = [
        words.encode_all(path.read_text().splitlines())
        for words, path in zip(stream.tokenizers, stream.files, strict=True)
    ]
    batches = Batches(sides[0], sides[1], tokens=100, shuffle=False)
    assert same(list(stream.epoch(0)), list(batches.epoch(0)))


def test_a_million_lines_in_flat_memory(tmp_path: Path) -> None:
    write(tmp_path, 1_000_000)
    answer = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    pairs, early, late, pools = map(int, answer.stdout.split())
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    assert pairs == 1_000_000 and pools == 49
    # As lists of ids, the rest of the file would take more than 200 MB.
    assert (late - early) * scale < 30_000_000
