"""The command line from end to end, on a small part of the little world."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from annotated import cli
from annotated.cli import main
from annotated.data import little_world
from annotated.records import read_record
from annotated.word2vec import Run, State, Vectors, load_vectors, save_vectors

PROGRAM = "import sys; from annotated.cli import main; sys.exit(main())"
EMBED = "embed --corpus text.txt --dim 16 --epochs 2 --batch 128 --quiet".split()
LEFT = ["vectors.bin", "vectors.safetensors", "vectors.txt"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside a small text, without the reader's own data and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANNOTATED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANNOTATED_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    Path("text.txt").write_text("\n".join(little_world(4000)) + "\n")
    return tmp_path


@pytest.fixture
def stranger() -> Path:
    """Four vectors from another tool, whose nearest neighbours one can see."""
    words = ["king", "queen", "man", "woman"]
    matrix = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, 0.2], [-1.0, 0.2]])
    return save_vectors(Vectors(words, matrix), "four.txt")


def files(folder: str) -> list[str]:
    """The names in a folder."""
    return sorted(os.listdir(folder))


def error(capsys: pytest.CaptureFixture[str], arguments: str) -> str:
    """The one line that a command ends with after a mistake."""
    capsys.readouterr()
    assert main(arguments.split()) == 2
    out, line = capsys.readouterr()
    assert not out
    assert line.startswith("annotated: error: ") and line.count("\n") == 1, line
    return line.removeprefix("annotated: error: ")


# embed


def test_embed_leaves_vectors_and_record(capsys: pytest.CaptureFixture[str]) -> None:
    """One run: three formats with the same vectors, a record, and no checkpoint."""
    assert main([*EMBED, "--name", "first"]) == 0
    assert files("runs/first") == ["first.json", *LEFT]
    text, binary, tensors = (
        load_vectors(f"runs/first/{name}") for name in sorted(LEFT)
    )
    assert text.words == binary.words == tensors.words
    assert torch.equal(text.matrix, binary.matrix)
    assert torch.equal(text.matrix, tensors.matrix)
    assert text.matrix.shape == (len(text.words), 16)

    record = read_record(Path("runs/first/first.json"))
    assert record["kind"] == "training"
    assert record["command"] == " ".join(["annotated", *EMBED, "--name first"])
    assert record["config"]["dim"] == 16 and record["config"]["window"] == 5
    assert record["config"]["workers"] >= 1
    metrics = record["metrics"]
    assert metrics["vocabulary"] == len(text.words)
    assert metrics["words_trained"] == 2 * metrics["words"]
    assert metrics["words_per_second"] > 0 and metrics["loss"] > 0

    out = capsys.readouterr().out
    assert "words per second" in out and "first.json" in out


def test_names_and_folders() -> None:
    """Without a name the run is called after corpus, model and width."""
    assert main([*EMBED, "--model", "cbow", "--workers", "1"]) == 0
    assert files("runs") == ["text-cbow-d16"]
    assert main([*EMBED, "--out", "elsewhere/here", "--name", "mine"]) == 0
    assert files("elsewhere/here") == ["mine.json", *LEFT]


def test_scores_of_benchmarks_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in the data folder are used; one without a known word is left out."""
    wordsim = Path("data/wordsim")
    wordsim.mkdir(parents=True)
    monkeypatch.setenv("ANNOTATED_DATA", "data")
    (wordsim / "questions-words.txt").write_text(": x\nking queen actor actress\n")
    (wordsim / "EN-WS-353-ALL.txt").write_text("king\tqueen\t9\nking\tsoup\t2\n")
    (wordsim / "EN-SIMLEX-999.txt").write_text("zebra\tyak\t5\n")
    assert main([*EMBED, "--name", "scored"]) == 0
    metrics = read_record(Path("runs/scored/scored.json"))["metrics"]
    assert metrics["analogies"] in (0, 1)
    assert abs(metrics["wordsim353"]) == pytest.approx(1)
    assert "simlex999" not in metrics


def test_little_world_needs_nothing() -> None:
    """No data folder, no network; it brings its own questions."""
    line = "embed --corpus little-world --dim 16 --epochs 1 --quiet --name little"
    assert main(line.split()) == 0
    metrics = read_record(Path("runs/little/little.json"))["metrics"]
    assert 0 <= metrics["little_world_analogies"] <= 1


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Words per second, loss and time left; nothing with --quiet."""
    assert main([*EMBED, "--name", "quiet"]) == 0
    assert not capsys.readouterr().err
    assert main([*[a for a in EMBED if a != "--quiet"], "--name", "loud"]) == 0
    bar = capsys.readouterr().err
    assert "word/s" in bar and "loss=" in bar and "100%" in bar


# Interrupts


def test_ctrl_c_and_resume_in_a_terminal() -> None:
    """SIGINT in mid-training; --resume completes it, bit for bit the same."""
    Path("text.txt").write_text("\n".join(little_world(8000)) + "\n")
    line = "embed --corpus text.txt --epochs 12 --workers 1 --batch 128 --name".split()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *line, "cut"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr
    seen = b""
    while b"loss=" not in seen:
        part = os.read(process.stderr.fileno(), 4096)
        assert part, seen.decode()
        seen += part
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    message = rest.decode()
    assert process.returncode == 130
    assert "interrupted at" in message and "Traceback" not in message
    assert "annotated embed" in message and "--name cut --resume" in message
    assert files("runs/cut") == ["checkpoint.safetensors", "vectors.safetensors"]
    assert load_vectors("runs/cut/vectors.safetensors").matrix.shape[1] == 100

    assert main([*line, "cut", "--resume", "--quiet"]) == 0
    assert files("runs/cut") == ["cut.json", *LEFT]
    assert main([*line, "whole", "--quiet"]) == 0
    cut, whole = (
        read_record(Path(f"runs/{name}/{name}.json")) for name in ("cut", "whole")
    )
    assert cut["config"] == whole["config"]
    assert cut["metrics"]["words_trained"] < whole["metrics"]["words_trained"]
    vectors = [load_vectors(f"runs/{name}/vectors.bin") for name in ("cut", "whole")]
    assert vectors[0].words == vectors[1].words
    assert torch.equal(vectors[0].matrix, vectors[1].matrix)


class Impatient(cli.Keeper):
    """Presses Ctrl-C twice while the first chunk is trained on."""

    presses = 2

    def __call__(self, run: Run) -> None:
        """Between chunks, as early as possible."""
        for _ in range(self.presses):
            signal.raise_signal(signal.SIGINT)
        super().__call__(run)


@pytest.mark.parametrize(("presses", "workers"), [(1, 2), (2, 1)])
def test_interrupts_leave_something_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch, presses: int, workers: int
) -> None:
    """Two workers; and someone who presses twice."""
    monkeypatch.setattr(Impatient, "presses", presses)
    before = signal.getsignal(signal.SIGINT)
    line = [*EMBED, "--epochs", "8", "--name", "cut", "--workers", str(workers)]
    with monkeypatch.context() as patch:
        patch.setattr(cli, "Keeper", Impatient)
        assert main(line) == 130
    assert files("runs/cut") == ["checkpoint.safetensors", "vectors.safetensors"]
    assert main([*line, "--resume"]) == 0
    assert files("runs/cut") == ["cut.json", *LEFT]
    assert signal.getsignal(signal.SIGINT) is before


def test_checkpoint_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the machine goes down, a minute is lost."""
    saved = []

    class Hasty(cli.Keeper):
        """Finds a minute gone at each chunk."""

        def __call__(self, run: Run) -> None:
            self.saved -= 61
            super().__call__(run)

        def save(self, state: State) -> None:
            saved.append(state.done)
            super().save(state)

    monkeypatch.setattr(cli, "Keeper", Hasty)
    assert main([*EMBED, "--workers", "1"]) == 0
    assert saved == list(range(len(saved))) and len(saved) > 2


def test_ctrl_c_while_counting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is there yet, and nothing stays behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "count_words", interrupt)
    assert main(EMBED) == 130
    assert capsys.readouterr().err == "annotated: interrupted\n"
    assert not Path("runs").exists()


def test_resume_without_checkpoint_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """So the same line can be typed until it succeeds, and once more."""
    assert main([*EMBED, "--resume", "--name", "run"]) == 0
    assert main([*EMBED, "--resume", "--name", "run"]) == 0
    assert capsys.readouterr().out.endswith("runs/run: finished already\n")
    record = read_record(Path("runs/run/run.json"))
    assert record["command"] == " ".join(["annotated", *EMBED, "--name run"])


def test_a_run_folder_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by the same command nor by one with other settings."""
    line = " ".join([*EMBED, "--name run"])
    assert main(line.split()) == 0
    before = Path("runs/run/vectors.bin").read_bytes()
    assert "holds a run already" in error(capsys, line)
    assert "other settings" in error(capsys, line + " --window 3 --resume")
    assert Path("runs/run/vectors.bin").read_bytes() == before


def test_checkpoint_of_another_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that differ from the checkpoint's are told, and it stays."""
    line = [*EMBED, "--workers", "1", "--name", "cut"]
    with monkeypatch.context() as patch:
        patch.setattr(cli, "Keeper", Impatient)
        assert main(line) == 130
    before = Path("runs/cut/checkpoint.safetensors").read_bytes()
    assert "another run" in error(capsys, " ".join([*line, "--dim 8 --resume"]))
    assert Path("runs/cut/checkpoint.safetensors").read_bytes() == before


# Mistakes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--corpus nowhere.txt", "nowhere.txt: no such corpus or file"),
        ("--dim 0", "dim"),
        ("--epochs -1", "epochs"),
        ("--min-count 0", "min_count"),
        ("--min-count 99999", "min_count=99999"),
        ("--workers 0", "--workers 0"),
        ("--name A_b", "--name A_b"),
        ("--out text.txt/run", "text.txt/run"),
        ("--out text.txt", "text.txt"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], options: str, says: str
) -> None:
    """What is wrong and where; the text that was there stays as it was."""
    before = Path("text.txt").read_bytes()
    assert says in error(capsys, " ".join([*EMBED, options]))
    assert Path("text.txt").read_bytes() == before


def test_a_training_that_diverges_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps without a bound overshoot; the command says so and writes no vectors."""
    monkeypatch.setattr("annotated.word2vec.CALM", 1e38)
    options = [*EMBED, "--learning-rate", "1e30", "--workers", "1"]
    assert "came to nothing" in error(capsys, " ".join(options))


def test_binary_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no text leaves no run behind."""
    Path("picture.png").write_bytes(b"\x89PNG\0\0")
    assert "a binary file" in error(capsys, "embed --quiet --corpus picture.png")
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is read."""
    assert "no CUDA GPU" in error(capsys, "embed --device cuda --corpus nowhere")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu() -> None:
    """The same command on a GPU."""
    assert main([*EMBED, "--device", "cuda", "--name", "gpu"]) == 0
    assert files("runs/gpu") == ["gpu.json", *LEFT]


@pytest.mark.parametrize(
    "line",
    ["", "embedd", "embed --dim x", "embed --modell cbow", "neighbors", "analogy a b"],
)
def test_wrong_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a box that says what was expected."""
    with pytest.raises(SystemExit) as exit:
        main(line.split())
    assert exit.value.code == 2
    assert "annotated" in capsys.readouterr().err


# Help


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option has an explanation and a default; every command an example."""
    pages = {}
    names = "embed neighbors analogy train translate tokenize generate evaluate export"
    for name in names.split():
        with pytest.raises(SystemExit) as exit:
            main([name, "--help"])
        assert exit.value.code == 0
        pages[name] = capsys.readouterr().out
        assert f"\nannotated {name} " in pages[name]
    with pytest.raises(SystemExit):
        main(["--help"])
    whole = capsys.readouterr().out
    assert "Union" not in whole
    for name in (*names.split(), "import"):
        assert f"• {name} " in whole and f"annotated {name} " in whole, name
    for option in cli.settings(cli.Embed(cli.Training())):
        assert f"--{option.replace('_', '-')} " in pages["embed"]
    for page in pages.values():
        text = " ".join(page.replace("│", " ").split()).partition(" --help ")[2]
        for option in re.split(" --(?=[a-z])", text)[1:]:
            words, default, _ = option.partition("(default:")
            free = default or "(required)" in words
            assert free or "quiet" in words or "resume" in words, option
            assert len(words.split()) > 3, f"--{words} has no explanation"


# neighbors and analogy


def test_neighbors(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores and words, the nearest first, and as many as asked for."""
    assert main(["neighbors", "king", "--vectors", str(stranger), "-n", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == " 0.832  man\n 0.000  queen\n"
    assert err == "four.txt: 4 words\n"
    assert main("neighbors KING --vectors four.txt --count 1".split()) == 0
    assert capsys.readouterr().out == " 0.832  man\n"


@pytest.mark.parametrize("multiply", [[], ["--multiply"]])
def test_analogy(
    stranger: Path, capsys: pytest.CaptureFixture[str], multiply: list[str]
) -> None:
    """Man is to king as woman is to queen."""
    line = ["analogy", "man", "king", "woman", "--vectors", str(stranger), *multiply]
    assert main(line) == 0
    assert capsys.readouterr().out.split()[1] == "queen"


def test_vectors_by_run_folder_and_age(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run by its name or its folder; without either, the newest."""
    vectors = load_vectors(stranger)
    for age, name in enumerate(["new", "old"]):
        path = save_vectors(vectors, f"runs/{name}/vectors.safetensors")
        os.utime(path, (10**9 - age, 10**9 - age))
    for given, found in [
        ("", "new"),
        ("--vectors old", "old"),
        ("--vectors runs/old", "old"),
        ("--vectors runs/old/vectors.safetensors", "old"),
    ]:
        assert main(["neighbors", "king", *given.split()]) == 0
        path = f"runs/{found}/vectors.safetensors"
        assert capsys.readouterr().err == f"{path}: 4 words\n"


def test_questions_without_answer(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, no file, no such word, no vectors in it: a line with advice."""
    assert "annotated embed" in error(capsys, "neighbors king")
    assert "no such file" in error(capsys, "neighbors king --vectors nowhere.txt")
    assert "no word vectors" in error(capsys, "neighbors king --vectors text.txt")
    assert "--count 0" in error(capsys, "neighbors king -n 0 --vectors four.txt")
    assert main("neighbors kingg --vectors four.txt".split()) == 2
    assert "did you mean king" in capsys.readouterr().err
