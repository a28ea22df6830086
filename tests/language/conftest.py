"""A small text, its token files, and a small run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from annotated.cli import main
from annotated.data import little_world
from annotated.language import Writer, load_language_model
from annotated.subwords import Tokenizer
from annotated.tokens import make_tokens

Words = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread."""


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two documents, with letters of one to four bytes."""
    lines = little_world(800)
    text = "\n".join(lines[:400]) + "\n\n\n" + "\n".join(lines[400:])
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(text + "\nÉté, 道, 🙂.\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokens(story: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its token files."""
    folder = tmp_path_factory.mktemp("tokens")
    make_tokens([str(story)], folder, "subwords", 400, progress=False)
    return folder


@pytest.fixture(scope="session")
def command() -> Words:
    """The command line of a training of seconds."""

    def words(data: Path, out: Path, *more: str) -> list[str]:
        line = f"train lm --data {data} --out {out} --name first --preset lm-tiny"
        line += " --vocabulary 400 --length 16 --tokens 128 --updates 12 --warmup 2"
        line += " --validate-every 6 --threads 1 --quiet"
        return [*line.split(), *more]

    return words


@pytest.fixture(scope="session")
def run(command: Words, story: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(command(story, out)) == 0
    return out


@pytest.fixture(scope="session")
def writer(run: Path) -> Writer:
    """The model of the run."""
    return load_language_model(run)


@pytest.fixture(scope="session")
def vocabulary(writer: Writer) -> Tokenizer:
    """Its vocabulary."""
    return writer.vocabulary
