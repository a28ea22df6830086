"""Two processes and three train a model in pieces as one trains it whole."""

import doctest
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from annotated import training
from annotated.cli import main
from annotated.data import little_world
from annotated.language import Sampling, load_language_model
from annotated.records import read_record
from annotated.sharding import Pieces, join_checkpoint
from annotated.training import Recipe, TrainingError, load_weights, read_metrics, train

HERE = Path(__file__).parent
NAMES = ["ema", "average", "plain"]


def torchrun(size: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Start processes and wait for them."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return subprocess.run(
        [sys.executable, *command, str(size), *words],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )


@pytest.fixture(scope="module")
def wanted(common: Any) -> dict[str, Any]:
    """Weights and gradients of uninterrupted runs on one process."""
    models = {name: common.alone(**common.options(name, 6)) for name in NAMES}
    return {name: dict(model.named_parameters()) for name, model in models.items()}


def on_two_processes(common: Any, folder: Path, device: str) -> None:
    """Begin runs on one process, interrupt them, and have pieces.py do the rest."""
    for name in NAMES:
        stop = common.Before(
            common.TRAIN, 13, lambda: os.kill(os.getpid(), signal.SIGINT)
        )
        common.alone(stop, folder=folder / f"two-{name}", **common.options(name, 6))
    done = torchrun(2, str(HERE / "pieces.py"), str(folder), device)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(common: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pieces.py left behind on two processes.

    Some of the runs were begun on one process, and interrupted in the third update.
    """
    folder = tmp_path_factory.mktemp("runs")
    on_two_processes(common, folder, "cpu")
    return folder


def left(runs: Path, name: str, size: int = 2) -> list[dict[str, Any]]:
    """What the processes had at the end of a run."""
    return [torch.load(runs / f"{name}.{rank}.pt") for rank in range(size)]


def equal(ours: Any, theirs: Any, atol: float = 1e-12) -> None:
    """Equal tensors, up to the order in which their parts were added."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=atol)


def test_bytes_that_a_process_holds(common: Any, runs: Path) -> None:
    """A slice of weights, gradients, two averages and the moving average: 40 bytes.

    Five numbers of eight bytes, of each row that is its own; the first process has one
    row more where rows are odd.
    """
    rows = {0: math.ceil, 1: math.floor}
    for rank, sizes in enumerate(left(runs, "held")):
        slices = [
            rows[rank](len(p) / 2) * p[0].numel() for p in common.fresh().parameters()
        ]
        assert sizes["weights"] == sizes["gradients"] == sizes["ema"] == 8 * sum(slices)
        assert sizes["averages"] == 16 * sum(slices)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_one_process(
    name: str, runs: Path, wanted: dict[str, Any]
) -> None:
    """Six updates of three batches each, with clipping, decay and averages.

    The gradients are the last update's, clipped. To 1e-12 in 64 bits: sums are taken in
    another order.
    """
    for here in left(runs, name):
        equal(here["weights"], wanted[name])
        if name == "plain":
            gradients = {key: p.grad for key, p in wanted[name].items()}
            equal(here["gradients"], gradients)


@pytest.mark.parametrize("name", ["ema", "average"])
def test_validation_is_that_of_one_process(common: Any, name: str, runs: Path) -> None:
    """Five batches on two processes; all have the same scores."""
    given = common.options(name, 6)
    rows = train(common.fresh(), common.TRAIN, **given)
    for here in left(runs, name):
        for key in ("validation_loss", "loss", "norm", "tokens", "best"):
            theirs = [row.get(key) for row in rows]
            assert [row.get(key) for row in here["history"]] == pytest.approx(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_begun_with_copies_on_one(
    name: str, runs: Path, wanted: dict[str, Any]
) -> None:
    """Its whole checkpoint is cut, and one in pieces takes its place."""
    for here in left(runs, f"two-{name}"):
        assert here["stopped"] == "finished"
        equal(here["weights"], wanted[name])
    folder = runs / f"two-{name}"
    found = sorted(path.name for path in folder.iterdir())
    assert found[:2] == ["best.safetensors", "last.safetensors"]
    assert found[2] == "metrics.jsonl" and found[3].startswith("pieces-")
    assert len(found) == 4
    assert set(load_file(folder / "last.safetensors")) == {"random.cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_resumed_on_one(
    common: Any, name: str, runs: Path, wanted: dict[str, Any]
) -> None:
    """Begun in pieces on two, interrupted, joined, and ended on one with copies."""
    folder = runs / f"one-{name}"
    assert [here["stopped"] for here in left(runs, folder.name)] == ["interrupted"] * 2
    with pytest.raises(TrainingError, match="its tensors are in pieces; join them"):
        common.alone(folder=folder, **common.options(name, 3))
    assert join_checkpoint(folder)
    assert not join_checkpoint(folder)
    assert not list(folder.glob("pieces-*"))
    rest = common.alone(folder=folder, **common.options(name, 3))
    equal(dict(rest.named_parameters()), wanted[name])


def test_resumed_on_three(runs: Path, wanted: dict[str, Any]) -> None:
    """Begun in pieces on two, ended in pieces on three, whose slices are others."""
    done = torchrun(3, str(HERE / "pieces.py"), str(runs), "cpu")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        for here in left(runs, f"three-{name}", 3):
            assert here["stopped"] == "finished"
            equal(here["weights"], wanted[name])


@pytest.mark.parametrize("name", NAMES)
def test_whole_weights_at_the_end(
    common: Any, name: str, runs: Path, wanted: dict[str, Any]
) -> None:
    """best.safetensors is a whole model's, with its names, for any program."""
    model = common.fresh()
    notes = load_weights(model, runs / f"two-{name}" / "best.safetensors")
    equal(dict(model.named_parameters()), wanted[name])
    assert notes["update"] <= 6
    assert read_metrics(runs / f"two-{name}")[-1]["update"] == 6


def test_bfloat16_rounds_as_autocast_does(common: Any, runs: Path) -> None:
    """The first gradient is one process's, but for the order of sums of 32 bits.

    So it is while the norms' gains are ones. Autocast does not round them.
    """
    low = Recipe(1, precision="bf16", accumulate=2, **common.ALL)
    model = common.fresh(double=False)
    train(model, common.TRAIN, low, progress=False)
    wanted = {name: p.grad for name, p in model.named_parameters()}
    for here in left(runs, "bf16"):
        equal(here["gradients"], wanted, 1e-6)


def test_a_validation_leaves_no_weights_behind(runs: Path) -> None:
    """The averages are shown, and the next update knows nothing of them."""
    for without, validated in left(runs, "watched"):
        for name in without:
            assert torch.equal(without[name], validated[name])


def test_nan_in_one_slice_stops_all(runs: Path) -> None:
    """At the same update, with the same error."""
    first, second = left(runs, "nan")
    assert "update 3: the loss is nan" in first["error"]
    assert first["error"] == second["error"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("damaged", "pieces-1: damaged, its checksums differ; put back a copy"),
        ("missing", "pieces-1: damaged, its checksums differ; put back a copy"),
        ("other", "last.safetensors: the checkpoint of another run: "),
        ("blocked", "pieces-0: cannot write it"),
    ],
)
def test_bad_checkpoints(name: str, said: str, runs: Path) -> None:
    """Both processes tell the same."""
    first, second = left(runs, name)
    assert said in first["error"]
    assert first["error"] == second["error"]


def test_a_checkpoint_that_failed_leaves_the_last_one(
    common: Any, runs: Path, wanted: dict[str, Any], tmp_path: Path
) -> None:
    """The second update's could not be written; the run goes on from the first's."""
    folder = tmp_path / "blocked"
    shutil.copytree(runs / "blocked", folder)
    join_checkpoint(folder)
    rest = common.alone(folder=folder, **common.options("plain", 3))
    equal(dict(rest.named_parameters()), wanted["plain"])


def test_pieces_of_one_process(common: Any) -> None:
    """There is nobody to share with, and scores that need the whole are refused."""
    with pytest.raises(TrainingError, match="one process holds all of a model"):
        common.alone(recipe=Recipe(1), parallel=Pieces())
    with pytest.raises(TrainingError, match="score needs the whole model"):
        common.alone(
            recipe=Recipe(1), parallel=Pieces(), validation=common.VALIDATION,
            score=lambda model: {},
        )  # fmt: skip


def test_docstrings() -> None:
    """What they show is so."""
    assert doctest.testmod(training).failed == 0


@pytest.mark.gpu
def test_two_gpus(common: Any, wanted: dict[str, Any], tmp_path: Path) -> None:
    """The same by nccl."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA GPUs")
    on_two_processes(common, tmp_path, "cuda")
    for name in NAMES:
        for kind in (name, f"two-{name}"):
            for here in left(tmp_path, kind):
                equal(here["weights"], wanted[name], 1e-10)


# On the command line


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of eight hundred lines."""
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text("\n".join(little_world(800)), encoding="utf-8")
    return path


def command(story: Path, out: Path, *more: str) -> list[str]:
    """The command line of a training of seconds, with a checkpoint every 2 updates."""
    line = f"train lm --data {story} --out {out} --name first --preset lm-tiny"
    line += " --vocabulary 400 --length 16 --tokens 128 --updates 8 --warmup 2"
    line += " --validate-every 2 --threads 1 --quiet"
    return [*line.split(), *more]


@pytest.fixture(scope="module")
def killed(story: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run in pieces on two processes, one killed in update 6; what was said."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    line = command(story, out, "--parallel", "fsdp")
    return out, torchrun(2, str(HERE / "killed.py"), *line)


def test_a_killed_process_ends_the_job(killed: tuple[Path, Any]) -> None:
    """With an error, and a sentence of how to go on; the checkpoint is there."""
    out, done = killed
    assert done.returncode == 1
    assert "a process of this run was lost, and the others cannot go on" in done.stderr
    assert "--resume" in done.stderr and "exitcode  : -9" in done.stderr
    assert done.stderr.count("Traceback") == 1  # torchrun's own
    assert read_metrics(out)[-1]["update"] == 4
    assert len(list(out.glob("pieces-*"))) == 1


@pytest.fixture(scope="module")
def undisturbed(story: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on one process, which takes two batches an update."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main(command(story, out, "--accumulate", "2")) == 0
    return out


def same_run(one: Path, other: Path) -> None:
    """Weights equal up to rounding in 32 bits, after Adam's eight steps of 2e-3."""
    equal(*(load_file(run / "best.safetensors") for run in (one, other)), atol=2e-5)
    metrics = [read_record(run / "first.json")["metrics"] for run in (one, other)]
    for key in ("bits_per_byte", "validation_bits_per_byte", "parameters", "updates"):
        assert metrics[0][key] == pytest.approx(metrics[1][key], rel=1e-4)


def test_a_killed_process_with_copies(
    story: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """With whole models the job ends as audibly, and one process ends the run."""
    out = tmp_path / "killed"
    done = torchrun(2, str(HERE / "killed.py"), *command(story, out))
    assert done.returncode == 1
    assert "a process of this run was lost, and the others cannot go on" in done.stderr
    assert main(command(story, out, "--resume")) == 0
    same_run(out, undisturbed)


def test_killed_on_two_resumed_on_two(
    killed: tuple[Path, Any], story: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """In pieces to the end; the model that is left writes like any other."""
    out = tmp_path / "killed"
    shutil.copytree(killed[0], out)
    line = command(story, out, "--parallel", "fsdp", "--resume")
    done = torchrun(2, "-m", "annotated", *line)
    assert done.returncode == 0, done.stderr
    same_run(out, undisturbed)
    config = read_record(out / "first.json")["config"]
    assert config["parallel"] == "fsdp" and config["processes"] == 2
    written = load_language_model(out).write(["The"], Sampling(0.0, longest=9))
    assert written == load_language_model(undisturbed).write(
        ["The"], Sampling(0.0, longest=9)
    )


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_killed_on_two_resumed_on_one(
    parallel: str,
    killed: tuple[Path, Any],
    story: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    """Its checkpoint becomes a whole one; alone there is nothing to cut."""
    out = tmp_path / "killed"
    shutil.copytree(killed[0], out)
    assert main(command(story, out, "--resume", "--parallel", parallel)) == 0
    same_run(out, undisturbed)
    assert not list(out.glob("pieces-*"))
