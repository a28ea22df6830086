"""The loop: what it computes, what it keeps, how it stops."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from annotated.parallel import Batch, Batches
from annotated.subwords import PAD
from annotated.training import (
    Place,
    Recipe,
    TrainingError,
    ahead,
    evaluate,
    groups,
    keep_memory,
    load_weights,
    mean_weights,
    read_metrics,
    train,
)

CONSTANT = {"schedule": "constant", "warmup": 0, "learning_rate": 1e-2}
QUIET = {"progress": False}


def weights(model: nn.Module) -> Tensor:
    """All weights of a model in one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Calls:
    """Batches that call back before some of them are given."""

    def __init__(self, batches: Any, at: dict[int, Callable[[], None]]) -> None:
        self.batches, self.at, self.given = batches, at, 0

    def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches, the calls among them."""
        for batch in self.batches.epoch(n, start=start):
            self.at.get(self.given, lambda: None)()
            self.given += 1
            yield batch


def test_learns(fresh: Any, batches: Batches, validation: Batches) -> None:
    """Copying is learned, and the returned model scores what the history says."""
    model = fresh()
    recipe = Recipe(200, learning_rate=2e-2, warmup=20, validate_every=50, ema=0.9)
    history = train(model, batches, recipe, validation=validation, **QUIET)
    _, losses = history.column("validation_loss")
    assert losses[0] > losses[-1]
    assert losses[-1] < 0.6
    assert history.stopped == "finished"
    assert not model.training
    found = evaluate(model, validation)
    assert found["validation_loss"] == min(losses)
    assert found["validation_perplexity"] == pytest.approx(
        torch.tensor(min(losses)).exp()
    )


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_accumulation_is_the_large_batch(fresh: Any, listed: Any, clip: float) -> None:
    """Three uneven micro-batches, twice, make the same two updates as two batches."""
    recipe = {"updates": 2, "clip": clip, **CONSTANT}
    large, parts = (fresh(dropout=0.0).double() for _ in range(2))
    train(large, listed(0, 50, 90), Recipe(**recipe), **QUIET)
    cuts = listed(0, 35, 48, 50, 60, 61, 90)
    history = train(parts, cuts, Recipe(**recipe, accumulate=3), **QUIET)
    torch.testing.assert_close(weights(parts), weights(large), rtol=0, atol=1e-12)
    assert history[-1]["update"] == 2


def test_loss_is_a_mean_over_real_tokens(fresh: Any, listed: Any) -> None:
    """However the rows are packed, and whatever the padding."""
    recipe = Recipe(1, smoothing=0.0, accumulate=2, **CONSTANT)
    model, losses, tokens = fresh(dropout=0.0).double(), 0.0, 0
    for batch in listed(0, 3, 40).epoch():
        real = batch.target_out != PAD
        logits = model.output(model.features(batch))[real]
        wanted = batch.target_out[real]
        losses += nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        tokens += int(real.sum())
    row = train(model, listed(0, 3, 40), recipe, **QUIET)[-1]
    assert row["loss"] == pytest.approx(losses / tokens, rel=1e-12)
    assert row["tokens"] == tokens


def test_what_is_left_of_an_epoch_goes_into_the_next(fresh: Any, listed: Any) -> None:
    """Three batches in groups of two: each is used, none twice in a row."""
    used: list[int] = []

    class Watched:
        def epoch(self, n: int = 0, start: int = 0) -> Iterator[Batch]:
            for i, batch in enumerate(listed(0, 10, 20, 30).epoch(n, start), start):
                used.append(i)
                yield batch

    train(fresh(), Watched(), Recipe(3, accumulate=2), **QUIET)
    assert used == [0, 1, 2, 0, 1, 2]


def test_same_seed_same_weights(fresh: Any, batches: Batches) -> None:
    """Bit for bit, with the fused optimizer; and another seed draws other dropout."""
    runs = []
    for seed in (1, 1, 2):
        model = fresh()
        train(model, batches, Recipe(20, seed=seed, optimizer="adamw"), **QUIET)
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_adam_is_torch_s(fresh: Any, listed: Any) -> None:
    """Updates as torch's plain optimizer makes them; decay of matrices alone."""
    model, plain = fresh(dropout=0.0), fresh(dropout=0.0)
    decayed = [p for p in plain.parameters() if p.dim() > 1]
    others = [p for p in plain.parameters() if p.dim() == 1]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others}],
        lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0,
    )  # fmt: skip
    for _ in range(5):
        batch = next(listed(0, 40).epoch())
        real = batch.target_out != PAD
        logits = plain.output(plain.features(batch)[real])
        adam.zero_grad()
        nn.functional.cross_entropy(logits, batch.target_out[real]).backward()
        adam.step()
    recipe = Recipe(
        5, optimizer="adamw", weight_decay=0.1, smoothing=0.0, clip=0.0, **CONSTANT
    )
    train(model, listed(0, 40), recipe, **QUIET)
    torch.testing.assert_close(weights(model), weights(plain), rtol=0, atol=1e-5)


def test_clipping_bounds_the_gradient(fresh: Any, batches: Batches) -> None:
    """The norm that is noted is the one before."""
    model = fresh()
    history = train(model, batches, Recipe(1, clip=1e-3, **CONSTANT), **QUIET)
    assert history[-1]["norm"] > 1e-3
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert length.item() == pytest.approx(1e-3, rel=1e-3)


def test_moving_average(fresh: Any, batches: Batches) -> None:
    """Equal to the formula applied by hand to the weights after each update."""
    after = []
    for updates in range(1, 6):
        model = fresh()
        train(model, batches, Recipe(updates, **CONSTANT), **QUIET)
        after.append(weights(model))
    wanted = weights(fresh())
    for t, now in enumerate(after, 1):
        decay = min(0.3, (1 + t) / (10 + t))
        wanted = decay * wanted + (1 - decay) * now
    model = fresh()
    train(model, batches, Recipe(5, ema=0.3, **CONSTANT), **QUIET)
    torch.testing.assert_close(weights(model), wanted, rtol=0, atol=1e-6)


def test_checkpoint_averaging(fresh: Any, batches: Batches) -> None:
    """The mean of the last three of five snapshots, two updates apart."""
    after = []
    for updates in (6, 8, 10):
        model = fresh()
        train(model, batches, Recipe(updates, **CONSTANT), **QUIET)
        after.append(weights(model))
    model = fresh()
    recipe = Recipe(10, average=3, validate_every=2, **CONSTANT)
    train(model, batches, recipe, **QUIET)
    wanted = torch.stack(after).mean(0)
    torch.testing.assert_close(weights(model), wanted, rtol=0, atol=1e-6)


def test_mean_weights() -> None:
    """Name by name, in the dtype that they had."""
    mean = mean_weights({"a": torch.full((2,), x)} for x in (1.0, 2.0, 6.0))
    assert mean["a"].tolist() == [3.0, 3.0]
    assert mean["a"].dtype == torch.float32


def test_validation_leaves_the_training_as_it_was(
    fresh: Any, batches: Batches, validation: Batches
) -> None:
    """Scores that draw random numbers, averaged weights: same training, bit for bit."""

    def score(model: nn.Module) -> dict[str, float]:
        assert not model.training
        return {"bleu": torch.rand(()).item()}

    with_, without = fresh(), fresh()
    some = Recipe(12, validate_every=5, ema=0.9)
    one = train(with_, batches, some, validation=validation, score=score, **QUIET)
    other = train(without, batches, Recipe(12, validate_every=5, ema=0.9), **QUIET)
    losses = [history.column("loss")[1] for history in (one, other)]
    assert losses[0] == losses[1]


def test_keeps_what_bleu_calls_best(
    fresh: Any, batches: Batches, validation: Batches, tmp_path: Path
) -> None:
    """Even where the loss disagrees; the file holds what the model is given."""
    seen, bleu = [], iter([10.0, 30.0, 20.0])

    def score(model: nn.Module) -> dict[str, float]:
        seen.append(weights(model))
        return {"bleu": next(bleu)}

    model = fresh()
    history = train(
        model, batches, Recipe(6, validate_every=2, **CONSTANT),
        validation=validation, score=score, folder=tmp_path, **QUIET,
    )  # fmt: skip
    assert history.column("best")[1] == [True, True, False]
    assert torch.equal(weights(model), seen[1])
    other = fresh()
    notes = load_weights(other, tmp_path / "best.safetensors")
    assert torch.equal(weights(other), seen[1])
    assert notes["update"] == 4
    assert notes["scores"]["bleu"] == 30


def test_patience(fresh: Any, batches: Batches, validation: Batches) -> None:
    """Two validations without a better one, and the run is over."""
    bleu = iter([5.0, 4.0, 6.0, 6.0, 5.0, 9.0])
    history = train(
        fresh(), batches, Recipe(60, validate_every=10, patience=2),
        validation=validation, score=lambda model: {"bleu": next(bleu)}, **QUIET,
    )  # fmt: skip
    assert history.stopped == "patience"
    assert history[-1]["update"] == 50


def test_bfloat16_trains(fresh: Any, batches: Batches) -> None:
    """The weights stay in 32 bits, and the loss falls as in 32 bits."""
    ends = []
    for precision in ("fp32", "bf16"):
        model = fresh()
        recipe = Recipe(100, precision=precision, learning_rate=2e-2, warmup=5)
        history = train(model, batches, recipe, log_every=10, **QUIET)
        ends.append(history[-1]["loss"])
        assert weights(model).dtype == torch.float32
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_tied_weights(fresh: Any, batches: Batches, tmp_path: Path) -> None:
    """One matrix under two names is saved, loaded and stays one matrix."""
    recipe = Recipe(6, ema=0.9)
    model, again = fresh(tied=True), fresh(tied=True)
    train(model, batches, recipe, folder=tmp_path, **QUIET)
    train(again, batches, recipe, folder=tmp_path, **QUIET)
    assert torch.equal(weights(model), weights(again))
    assert again.output.weight is again.embedding.weight


def test_metrics_are_lines_of_json(
    fresh: Any, batches: Batches, tmp_path: Path
) -> None:
    """What is returned is what the file says."""
    history = train(fresh(), batches, Recipe(9), folder=tmp_path, log_every=3, **QUIET)
    assert read_metrics(tmp_path) == history
    assert history.column("update")[0] == [3, 6, 9]
    assert set(history[0]) >= {"loss", "nll", "learning_rate", "tokens_per_second"}


def test_reads_metrics_that_are_being_written(tmp_path: Path) -> None:
    """Half a last line is left out; half a line in the middle is an error."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"update": 1}\n{"upda')
    assert read_metrics(tmp_path) == [{"update": 1}]
    file.write_text('{"upda\n{"update": 1}\n')
    with pytest.raises(TrainingError, match="line 1"):
        read_metrics(tmp_path)
    with pytest.raises(TrainingError, match="give the folder of a run"):
        read_metrics(tmp_path / "nowhere")


def stopped_at(
    update: int, fresh: Any, batches: Any, recipe: Recipe, folder: Path | None
) -> Any:
    """A run in which somebody presses Ctrl-C before this update."""
    press = Calls(batches, {update - 1: lambda: os.kill(os.getpid(), signal.SIGINT)})
    return train(fresh(), press, recipe, folder=folder, **QUIET)


def test_ctrl_c_saves_and_goes_on(
    fresh: Any, batches: Batches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The update is finished, and the run that goes on ends at the same weights."""
    recipe = Recipe(12, warmup=3)
    before = signal.getsignal(signal.SIGINT)
    history = stopped_at(5, fresh, batches, recipe, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert history.stopped == "interrupted"
    said = capsys.readouterr().err
    assert "stopped after update 5: train again to go on from" in said
    assert not (tmp_path / "best.safetensors").exists()
    whole, rest = fresh(), fresh()
    train(whole, batches, recipe, **QUIET)
    assert train(rest, batches, recipe, folder=tmp_path, **QUIET).stopped == "finished"
    assert torch.equal(weights(rest), weights(whole))


def test_ctrl_c_without_a_folder(
    fresh: Any, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that nothing was saved."""
    assert stopped_at(2, fresh, batches, Recipe(9), None).stopped == "interrupted"
    assert "not saved" in capsys.readouterr().err


def test_ctrl_c_twice(fresh: Any, batches: Batches, tmp_path: Path) -> None:
    """The second one does not wait."""

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), Calls(batches, {3: press}), Recipe(9), folder=tmp_path, **QUIET)


def test_trains_in_a_thread(fresh: Any, batches: Batches) -> None:
    """Where signals cannot be caught."""
    done: list[Any] = []
    thread = threading.Thread(
        target=lambda: done.append(train(fresh(), batches, Recipe(2), **QUIET))
    )
    thread.start()
    thread.join()
    assert done[0].stopped == "finished"


def test_a_finished_run_is_only_loaded(
    fresh: Any, batches: Batches, validation: Batches, tmp_path: Path
) -> None:
    """The same history and weights, and no update more."""
    recipe = Recipe(10, validate_every=4, ema=0.9)
    models = fresh(), fresh(), fresh()
    first, again = (
        train(model, batches, recipe, validation=validation, folder=tmp_path, **QUIET)
        for model in models[:2]
    )
    assert first == again
    assert again.stopped == "finished"
    assert torch.equal(weights(models[0]), weights(models[1]))
    load_weights(models[2], tmp_path / "best.safetensors")
    assert torch.equal(weights(models[0]), weights(models[2]))


def test_metrics_are_cut_back_to_the_checkpoint(
    fresh: Any, batches: Batches, tmp_path: Path
) -> None:
    """Lines that a killed run wrote after its last checkpoint are not there twice."""
    stopped_at(6, fresh, batches, Recipe(12), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 6, "kept": True}) + "\n")
        file.write(json.dumps({"update": 8, "kept": False}) + '\n{"upd')
    (tmp_path / ".last.safetensors.1.tmp").write_bytes(b"half")
    history = train(fresh(), batches, Recipe(12), folder=tmp_path, log_every=4, **QUIET)
    assert [row["update"] for row in history] == [6, 8, 12]
    assert history.column("kept")[1] == [True]
    assert read_metrics(tmp_path) == history
    assert not list(tmp_path.glob(".*"))


def diverge(model: nn.Module) -> None:
    """Weights at which the loss is no number."""
    with torch.no_grad():
        model.get_parameter("output.weight").fill_(torch.inf)


def test_nan(fresh: Any, batches: Batches, tmp_path: Path) -> None:
    """The update, the rate, what to do; the last checkpoint is the one before."""
    model = fresh()
    trap = Calls(batches, {4: lambda: diverge(model)})
    with pytest.raises(TrainingError) as info:
        train(
            model, trap, Recipe(9, **CONSTANT), folder=tmp_path, save_every=0.0, **QUIET
        )
    said = str(info.value)
    assert "update 5: the loss is nan" in said
    assert "learning rate of 0.01; lower the rate" in said
    assert "\n" not in said
    notes = load_file(tmp_path / "last.safetensors")
    assert all(t.isfinite().all() for t in notes.values())
    whole, rest = fresh(), fresh()
    train(whole, batches, Recipe(9, **CONSTANT), **QUIET)
    train(rest, batches, Recipe(9, **CONSTANT), folder=tmp_path, **QUIET)
    assert torch.equal(weights(rest), weights(whole))


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "text", "foreign"])
def test_damaged_checkpoint(
    harm: str, fresh: Any, batches: Batches, tmp_path: Path
) -> None:
    """One line that names the file; the file itself is left for a doctor."""
    train(fresh(), batches, Recipe(4), folder=tmp_path, **QUIET)
    path = tmp_path / "last.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "truncated":
        data = data[: len(data) // 2]
    elif harm == "flipped":
        data[-100] ^= 1
    elif harm == "empty":
        data = bytearray()
    elif harm == "text":
        data = bytearray(b"these are not the weights you are looking for")
    else:
        data = bytearray(b"\x02\0\0\0\0\0\0\0{}")
    path.write_bytes(data)
    with pytest.raises(TrainingError) as info:
        train(fresh(), batches, Recipe(4), folder=tmp_path, **QUIET)
    said = str(info.value)
    assert said.startswith(str(path))
    assert "not written by" in said if harm == "foreign" else "damaged" in said
    assert "\n" not in said
    assert path.read_bytes() == data


def test_another_run(fresh: Any, batches: Batches, tmp_path: Path) -> None:
    """The setting that differs is named, in the recipe or in what the caller gives."""
    same = {"data": "multi30k", "sizes": {"d_model": 128}}
    options = {"folder": tmp_path, **QUIET}
    train(fresh(), batches, Recipe(3), identity=same, **options)
    with pytest.raises(TrainingError, match=r"recipe.updates is 4 now and 3 there"):
        train(fresh(), batches, Recipe(4), identity=same, **options)
    other = {"data": "multi30k", "sizes": {"d_model": 256}}
    with pytest.raises(TrainingError, match=r"sizes.d_model is 256 now and 128 there"):
        train(fresh(), batches, Recipe(3), identity=other, **options)
    with pytest.raises(TrainingError, match="data is not set now and multi30k there"):
        train(fresh(), batches, Recipe(3), **options)
    with pytest.raises(TrainingError, match=r"ask.weight is \[12, 8\] now"):
        train(fresh(width=8), batches, Recipe(3), identity=same, **options)
    with pytest.raises(TrainingError, match="the weights of another model"):
        load_weights(fresh(width=8), tmp_path / "best.safetensors")
    train(fresh(), batches, Recipe(3), identity=same, **options)


def test_full_disk(
    fresh: Any, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; the checkpoint before is whole, and the run goes on from it."""
    recipe, options = Recipe(9), {"folder": tmp_path, "save_every": 0.0, **QUIET}

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    trap = Calls(batches, {5: lambda: monkeypatch.setattr(os, "fsync", full)})
    with pytest.raises(TrainingError, match="No space left on device") as info:
        train(fresh(), trap, recipe, **options)
    assert "last good checkpoint" in str(info.value)
    assert "\n" not in str(info.value)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last.safetensors",
        "metrics.jsonl",
    ]
    whole, rest = fresh(), fresh()
    train(whole, batches, recipe, **QUIET)
    train(rest, batches, recipe, **options)
    assert torch.equal(weights(rest), weights(whole))


def test_folder_that_cannot_be_made(
    fresh: Any, batches: Batches, tmp_path: Path
) -> None:
    """A file where the folder should be."""
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot write it"):
        train(fresh(), batches, Recipe(2), folder=tmp_path / "run", **QUIET)


def test_no_data(fresh: Any, listed: Any, batches: Batches) -> None:
    """Nothing to train or validate on is an error and no endless loop."""
    with pytest.raises(TrainingError, match="training data are empty"):
        train(fresh(), listed(0), Recipe(2), **QUIET)
    with pytest.raises(TrainingError, match="validation data are empty"):
        train(fresh(), batches, Recipe(2), validation=listed(0), **QUIET)


def test_no_weights(fresh: Any, tmp_path: Path) -> None:
    """A path that is not there."""
    with pytest.raises(TrainingError, match="no such file; training writes one"):
        load_weights(fresh(), tmp_path / "best.safetensors")


def test_tensorboard_is_optional(
    fresh: Any, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for and not installed: a line that says how to get it."""
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        train(fresh(), batches, Recipe(1), tensorboard=True, **QUIET)


def test_progress_bar(
    fresh: Any, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loss, speed and the time left."""
    train(fresh(), batches, Recipe(4), log_every=2)
    said = capsys.readouterr().err
    assert "loss=" in said
    assert "tokens=" in said
    assert "4/4" in said


def test_share_of_the_peak(
    fresh: Any, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar and the history have it where the peak is known."""
    history = train(fresh(), batches, Recipe(4), log_every=2, peak_tokens=1e7)
    for row in history:
        assert row["mfu"] == row["tokens_per_second"] / 1e7
    assert "mfu=" in capsys.readouterr().err
    assert "mfu" not in train(fresh(), batches, Recipe(1), **QUIET)[-1]


def test_seconds_are_those_of_loading_too(fresh: Any, batches: Batches) -> None:
    """An update begins when its batches are asked for."""
    slow = Calls(batches, {2: lambda: time.sleep(0.5)})
    history = train(fresh(), slow, Recipe(4), log_every=1, **QUIET)
    assert max(row["seconds"] for row in history) >= 0.5


def test_batches_are_made_ahead(batches: Batches, listed: Any) -> None:
    """The next group is made while one is used; an error comes in its turn."""
    made: list[int] = []

    def ready(batch: Any) -> Any:
        made.append(len(made))
        return batch

    found = ahead(groups(batches, Place(), 2), ready)
    wanted = groups(batches, Place(), 2)
    for _ in range(5):
        (one, *at), (other, *there) = next(found), next(wanted)
        assert at == there
        assert all(
            torch.equal(a.source, b.source) for a, b in zip(one, other, strict=True)
        )
    found.close()
    assert len(made) == 12  # five groups of two, and one that is not used
    with pytest.raises(TrainingError, match="nothing to train on"):
        next(ahead(groups(listed(0), Place(), 1), ready))


def test_keep_memory() -> None:
    """True with glibc, False elsewhere, and never an error."""
    assert keep_memory() in (True, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(
    fresh: Any, batches: Batches, validation: Batches, tmp_path: Path
) -> None:
    """In bfloat16, stopped and resumed on a GPU."""
    recipe = Recipe(60, precision="bf16", learning_rate=2e-2, warmup=5, ema=0.9)
    options = {"validation": validation, "device": "cuda", **QUIET}
    fail = Calls(batches, {30: lambda: os.kill(os.getpid(), signal.SIGINT)})
    train(fresh(), fail, recipe, folder=tmp_path, **options)
    model = fresh()
    history = train(model, batches, recipe, folder=tmp_path, **options)
    assert history[-1]["validation_loss"] < 1.5
    assert weights(model).device.type == "cuda"
