"""The ablation of chapter 5's changes: the command at a size of seconds."""

import dataclasses
import json
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from annotated.little_language import little_pairs
from annotated.parallel import Batch, Batches, make_batch
from annotated.records import read_record
from annotated.transformer import PRESETS, Config, Transformer
from annotated.translation import Parts, as_modern, with_parts

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
Command = Callable[..., int]


@pytest.fixture(scope="module")
def ablation() -> Iterator[ModuleType]:
    """The program as a module, which finds its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import modern_ablation as module  # type: ignore[import-not-found]

        yield module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three splits; French stands in for German."""
    folder = tmp_path_factory.mktemp("corpus")
    pairs = little_pairs(60, seed=3, max_depth=1)
    sides = {"en": [p.source for p in pairs], "fr": [p.target for p in pairs]}
    for split, few in {"train": 60, "val": 8, "test": 8}.items():
        for language, lines in sides.items():
            text = "\n".join([*lines[:few], ""])
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def command(
    ablation: ModuleType,
    corpus: Path,
    one_thread: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """Run the command on a model of nothing; all goes to the test's folder."""
    monkeypatch.setitem(PRESETS, "mini", Config(1, 16, 24, 4))

    def run(words: str = "") -> int:
        line = f"modern_ablation.py --preset mini --data {corpus} --pair en-fr"
        line += " --vocabulary 300 --updates 3 --tokens 200 --seeds 2 --threads 1"
        line += f" --sentences 6 --scratch {tmp_path / 'cells'} {words}"
        monkeypatch.setattr(sys, "argv", line.split())
        return int(ablation.ask(ablation.Settings, ablation.report, "", "again"))

    return run


def cells(folder: Path) -> dict[str, int]:
    """The finished cells, and when they were written."""
    record = "modern-ablation-multi30k.json"
    found = {p.name: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
    return {name: at for name, at in found.items() if name != record}


def test_a_table_in_two_goes(
    ablation: ModuleType,
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One cell, then the others; each seed, means and noise are in the record."""
    assert command("--only rope --seed 1") == 0
    assert "1 of 16 cells" in capsys.readouterr().out
    first = cells(tmp_path)
    assert [*first] == ["rope-1.json"]
    assert command() == 0
    after = cells(tmp_path)
    assert len(after) == 16 and after["rope-1.json"] == first["rope-1.json"]
    record = read_record(tmp_path / "cells" / "modern-ablation-multi30k.json")
    metrics, config = record["metrics"], record["config"]
    for kind in ablation.MEASURED["translation"]:
        variances = []
        for name in ablation.NAMES:
            each = [metrics[f"{kind}_{name}_seed{seed}"] for seed in range(2)]
            assert metrics[f"{kind}_{name}"] == pytest.approx(statistics.mean(each))
            variances.append(statistics.variance(each))
        assert metrics[f"noise_{kind}"] == pytest.approx(variances[0] ** 0.5)
        pooled = metrics[f"noise_{kind}_pooled"] ** 2
        assert pooled == pytest.approx(statistics.mean(variances))
    assert metrics["noise_validation_loss"] > 0
    assert config["models"].keys() == set(ablation.NAMES)
    assert "case:lc" in config["signature"] and "seed" not in config
    assert command() == 0
    assert cells(tmp_path) == after


def test_an_interrupted_cell_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its checkpoint, to the same result as without."""
    assert command("--only all --seed 0") == 0
    path = tmp_path / "cells" / "all-0.json"
    whole = json.loads(path.read_text())["result"]
    path.unlink()
    epoch, pressed = Batches.epoch, []

    def press(self: Batches, *place: int, **more: int) -> Iterator[Batch]:
        for number, batch in enumerate(epoch(self, *place, **more)):
            if number == 1 and not pressed:
                pressed.append(signal.raise_signal(signal.SIGINT))
            yield batch

    monkeypatch.setattr(Batches, "epoch", press)
    assert command("--only all --seed 0") == 130
    assert pressed and not path.exists() and path.with_suffix("").is_dir()
    assert command("--only all --seed 0") == 0
    again = json.loads(path.read_text())["result"]
    for key in set(whole) - {"seconds"}:
        assert again[key] == whole[key], key
    assert not path.with_suffix("").exists()


def test_a_cell_of_other_settings_is_not_used(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that cannot be read; both are named, and stay."""
    words = "--only chapter4 --seed 0"
    assert command(words) == 0
    path = tmp_path / "cells" / "chapter4-0.json"
    capsys.readouterr()
    assert command(f"{words} --learning-rate 1e-3") == 2
    assert "chapter4-0.json: was made with other settings" in capsys.readouterr().err
    path.write_text("{")
    assert command(words) == 2
    assert "chapter4-0.json: holds no finished cell" in capsys.readouterr().err
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--preset huge", "--preset huge: chapter 4 has tiny, "),
        ("--only lstm", "--only lstm: there are chapter4, rms_norm"),
        ("--seeds 1", "--seeds 1: give 2 or more"),
        ("--seed 2", "--seed 2: give 0 to 1"),
        ("--threads 0", "--threads: 1 or more"),
        ("--updates 0", "updates is 0"),
    ],
)
def test_bad_options(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    problem: str,
) -> None:
    """A sentence that names the option, and nothing is trained."""
    assert command(words) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "cells").exists()


def test_one_change_at_a_time(ablation: ModuleType) -> None:
    """Each is what the command line makes of the preset, and weights stay."""
    base = PRESETS["tiny"]
    made = ablation.variants(base)
    options = {
        "rms_norm": Parts(norm="rms"),
        "pre_norm": Parts(norm_place="pre"),
        "rope": Parts(positions="rotary"),
        "swiglu": Parts(network="swiglu"),
        "grouped_query": Parts(kv_heads=2),
        "no_biases": Parts(attention_bias="no"),
        "all": Parts("rms", "pre", "rotary", "swiglu", 2, "no"),
    }
    assert made.pop("chapter4") == base and made.keys() == options.keys()
    for name, parts in options.items():
        assert as_modern(with_parts(base, parts)) == made[name], name
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in Transformer(config, 4000).parameters())
            for name, config in {"base": base, **made}.items()
        }
    for name in ("rms_norm", "pre_norm", "rope", "swiglu", "no_biases"):
        assert counts[name] == pytest.approx(counts["base"], rel=0.005), name
    assert counts["grouped_query"] < 0.95 * counts["base"]


def test_switched_off_it_is_the_baseline(ablation: ModuleType) -> None:
    """From the same seed the same weights and numbers, so changes are all there is."""
    base = Config(2, 16, 24, 4, dropout=0.0)
    found: list[Any] = []
    for config in (base, as_modern(base)):
        torch.manual_seed(0)
        model = Transformer(config, 20)
        found.append(model.features(make_batch([[3, 4, 5], [6]], [[7, 8], [9, 3]])))
    torch.testing.assert_close(*found)


def test_a_decoder_alone(
    ablation: ModuleType, command: Command, corpus: Path, tmp_path: Path
) -> None:
    """On a text: its variants have the same changes, and no encoder."""
    text = tmp_path / "text.txt"
    lines = [(corpus / "train.en").read_text(encoding="utf-8")] * 3
    text.write_text("\n".join(lines), encoding="utf-8")
    assert command(f"--task language --data {text} --length 16") == 0
    record = read_record(tmp_path / "cells" / "modern-ablation-shakespeare.json")
    metrics, config = record["metrics"], record["config"]
    for name in ablation.NAMES:
        loss, bits = (
            metrics[f"{kind}_{name}"] for kind in ("validation_loss", "bits_per_byte")
        )
        assert 0 < bits < loss
    whole, shared = (metrics[f"parameters_{n}"] for n in ("chapter4", "grouped_query"))
    assert whole - shared == 2 * 8 * 17  # of two heads keys and values, with biases
    assert whole < 300 * 16 + 16 * 200  # far from an encoder's and a decoder's
    assert config["length"] == 16 and "signature" not in config


def test_chapter_4s_choices(
    ablation: ModuleType, command: Command, tmp_path: Path
) -> None:
    """Each changes what its name says; mean and last weights are measured apart."""
    assert command("--task recipe --updates 30 --learning-rate 0.02") == 0
    record = read_record(tmp_path / "cells" / "recipe-ablation-multi30k.json")
    metrics, models = record["metrics"], record["config"]["models"]
    assert {name: model["norm"] for name, model in models.items()} == {
        "chosen": "pre",
        "post_norm": "post",
        "no_smoothing": "pre",
    }
    whole = ablation.Settings("recipe").whole
    smoothing = [
        ablation.Cell(whole, name, 0).recipe.smoothing for name in ablation.CHOICES
    ]
    assert smoothing == [0.1, 0.1, 0.0]
    assert whole.recipe.updates - 4 * whole.recipe.validate_every == 1260
    for kind in ablation.MEASURED["recipe"]:
        assert all(f"{kind}_{name}" in metrics for name in models), kind
    assert not list((tmp_path / "cells").glob("*/last.safetensors"))


def test_the_last_weights_are_not_the_mean(
    ablation: ModuleType,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search sees the mean of five checkpoints first, and then the last of them."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(self: Any, translator: Any, search: str) -> tuple[float, str]:
        seen.append({k: t.clone() for k, t in translator.model.state_dict().items()})
        return float(len(seen)), "case:lc"

    saved: list[dict[str, torch.Tensor]] = []
    read = ablation.read_tensors

    def keep(path: Path) -> Any:
        found = read(path)
        saved.append(found[0])
        return found

    monkeypatch.setattr(ablation.Choices, "bleu", look)
    monkeypatch.setattr(ablation, "read_tensors", keep)
    line = "--task recipe --updates 10 --learning-rate 0.02 --only chosen --seed 0"
    assert command(line) == 0
    (tensors,) = saved
    for name, mean in seen[0].items():
        torch.testing.assert_close(seen[2][name], tensors[f"model.{name}"])
        if f"average.1.{name}" in tensors:
            each = [tensors[f"average.{i}.{name}"] for i in range(1, 6)]
            torch.testing.assert_close(mean, torch.stack(each).mean(0))
    assert any((seen[0][name] != seen[2][name]).any() for name in seen[0])


def test_only_whole_measurements_are_published(ablation: ModuleType) -> None:
    """A trial's record goes elsewhere; how it was cut into calls does not matter."""
    whole = ablation.Settings().whole
    assert whole.measured and ablation.Settings("language").whole.measured
    assert dataclasses.replace(whole, only="rope", seed=1, threads=1).measured
    for change in ({"updates": 20}, {"data": "little"}, {"seeds": 2}, {"sentences": 9}):
        assert not dataclasses.replace(whole, **change).measured
