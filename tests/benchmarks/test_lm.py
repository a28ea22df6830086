"""The language model beside Llama: the command at a size of seconds."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from annotated.cli import main
from annotated.data import DataError, little_world
from annotated.language import PRESETS, flops_per_token
from annotated.records import read_record

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = "--preset lm-tiny --vocabulary 300 --length 16 --tokens 32 --batches 2 --turns 1"
Command = Callable[..., int]


@pytest.fixture(scope="module")
def lm() -> Iterator[ModuleType]:
    """The program as a module, which finds its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import lm as module  # type: ignore[import-not-found]

        yield module


@pytest.fixture
def command(
    lm: ModuleType, one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run the command; its record goes to the test's folder."""

    def run(words: str) -> int:
        line = ["lm.py", *words.split(), "--threads", "1", "--scratch", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", line)
        return int(lm.ask(lm.Settings, lm.report, lm.__doc__))

    return run


def test_side_by_side(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both train and write; the record has ratios, and who was compared with whom."""
    assert command(f"{TINY} --prompts 2 --prompt-tokens 5 --new-tokens 7") == 0
    record = read_record(tmp_path / "lm-benchmark.json")
    metrics, config = record["metrics"], record["config"]
    assert set(config["best"]) == {"ours", "hf", "hf_kept"}
    assert config["hf_attention"] == "sdpa"
    for of in ("", "_fp32", "_bf16"):
        ours, theirs, kept = (
            metrics[f"train_tokens_per_second_{w}{of}"] for w in config["best"]
        )
        assert metrics[f"train_ratio_hf_llama{of}"] == pytest.approx(ours / theirs)
        assert metrics[f"train_ratio_hf_llama_kept{of}"] == pytest.approx(ours / kept)
    for who, precision in config["best"].items():
        kind = f"train_tokens_per_second_{who}"
        speeds = [metrics[f"{kind}_fp32"], metrics[f"{kind}_bf16"]]
        assert metrics[kind] == max(speeds) == metrics[f"{kind}_{precision}"]
    ways = {"plain": "ours", "greedy": "ours_greedy"}
    for way, ours in ways.items():
        speeds = [metrics[f"generate_b1_tokens_per_second_{w}"] for w in (ours, "hf")]
        ratio = metrics[f"generate_b1_{way}_ratio_hf"]
        assert ratio == pytest.approx(speeds[0] / speeds[1])
    ratios = [metrics[f"generate_b1_{way}_ratio_hf"] for way in ways]
    assert metrics["generate_b1_ratio_hf"] == pytest.approx(max(ratios))
    assert {"train_cpu_ratio_hf_llama_bf16", "generate_b1_cpu_ratio_hf"} <= set(metrics)
    turns = config["training_turns"]
    assert all(turn["tokens"] == 64 for turn in turns["hf_fp32"])
    losses = [turns[f"{who}_fp32"][-1]["loss"] for who in ("hf", "hf_kept")]
    assert losses[0] == pytest.approx(losses[1])  # the same work, elsewhere
    assert not multiprocessing.active_children()
    assert "train_ratio_hf_llama: " in capsys.readouterr().out


def test_a_trained_model_writes(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind its own test text, with guesses and without; all texts are the same."""
    story, run = tmp_path / "story.txt", tmp_path / "first"
    story.write_text("\n".join(little_world(400)), encoding="utf-8")
    train = f"train lm --data {story} --out {run} --name first --preset lm-tiny"
    train += " --vocabulary 300 --length 16 --tokens 128 --updates 8 --quiet"
    assert main(train.split()) == 0
    words = "--prompts 2 --prompt-tokens 5 --new-tokens 9 --ahead 3 --parts writing"
    words += " --no-compiled"
    assert command(f"{TINY} {words} --run {run}") == 0
    record = read_record(tmp_path / "lm-benchmark.json")
    metrics, kind = record["metrics"], "generate_b1_tokens_per_second_"
    for ratio, ours, theirs in (
        ("plain_ratio_hf", "ours", "hf"),
        ("ahead_ratio_hf", "ours_ahead", "hf"),
        ("ahead_ratio_hf_lookup", "ours_ahead", "hf_lookup"),
    ):
        wanted = metrics[kind + ours] / metrics[kind + theirs]
        assert metrics[f"generate_b1_{ratio}"] == pytest.approx(wanted)
    assert record["config"]["training_of_run"].startswith("annotated train lm")
    assert "generate_b1_ahead_ratio_hf: " in capsys.readouterr().out


def test_a_peer_that_dies_is_noticed(lm: ModuleType) -> None:
    """Instead of waiting for it."""
    with pytest.raises(DataError, match="ended before its work was done"):
        lm.Apart(os._exit, 3)()


def test_both_learn_the_same(lm: ModuleType, one_thread: None) -> None:
    """On rows that end where Llama's last word is asked for, weights stay equal."""
    settings = lm.Settings(
        preset="lm-tiny", vocabulary=300, length=16, tokens=32, batches=3
    ).whole
    ours, theirs = lm.OurLearner(settings, "fp32"), lm.TheirLearner(settings, "fp32")
    for batch in lm.training_batches(settings):
        inside = batch.target_in[:, :-1].contiguous(), batch.target_in[:, 1:]
        loss = ours.update(batch._replace(target_in=inside[0], target_out=inside[1]))
        assert float(theirs.update(batch)) == pytest.approx(loss, rel=1e-5)
    own = lm.llama_weights(ours.run.model.state_dict(), settings.config)
    for name, tensor in theirs.model.state_dict().items():
        if name in own:
            torch.testing.assert_close(tensor, own[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="needs a CUDA device"
                ),
            ],
        ),
    ],
)
def test_utilisation(command: Command, tmp_path: Path, device: str) -> None:
    """The share of a peak that is given; on a GPU compiled, and with its memory."""
    how = "--compiled" if device == "cuda" else "--no-compiled"
    words = f"--mode utilisation --device {device} {how} --peak-teraflops 0.5"
    assert command(f"{TINY} {words}") == 0
    name = "lm-tiny-cuda" if device == "cuda" else "lm-tiny"
    metrics = read_record(tmp_path / f"{name}.json")["metrics"]
    work = flops_per_token(PRESETS["lm-tiny"], 300, 16)
    for of in ("", "_ours", "_hf"):
        share = metrics[f"tokens_per_second{of}"] * work / 0.5e12
        assert metrics[f"mfu{of}"] == pytest.approx(share)
    memory = [metrics.get(f"peak_memory_gib_{who}", 0) for who in ("ours", "hf")]
    assert (min(memory) > 0) == (device == "cuda")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--preset lm-huge", "--preset lm-huge: there are lm-tiny, "),
        ("--turns 0", "--turns 0: give 1 or more"),
        ("--mode utilisation", "--device cpu: its peak is not known here"),
        (f"{TINY} --tokens 8", "--length 16: give 1 to --tokens, which is 8"),
        (f"{TINY} --run nowhere", "nowhere: no config.json"),
    ],
)
def test_bad_options(
    command: Command, capsys: pytest.CaptureFixture[str], words: str, problem: str
) -> None:
    """A sentence that names the option, and an exit code."""
    assert command(words) == 2
    said = capsys.readouterr()
    assert f"benchmark: error: {problem}" in said.err
    assert "training" not in said.out + said.err.partition("error:")[0]


def test_another_model_is_not_compared(
    lm: ModuleType, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in training nor in writing."""
    settings = lm.Settings(preset="lm-tiny", vocabulary=300, length=16, tokens=32).whole
    build = lm.as_llama

    def other(model: Any) -> Any:
        llama = build(model)
        llama.model.norm.weight.data.mul_(2)
        return llama

    monkeypatch.setattr(lm, "as_llama", other)
    with pytest.raises(DataError, match="they are not the same model"):
        lm.check_same(settings, lm.training_batches(settings)[0])
    with pytest.raises(DataError, match="hf: text 2 is not ours, from word 1 on"):
        lm.check_texts({"ours": [[3], [4, 5]], "hf": [[3], [4, 6]]})
    with pytest.raises(DataError, match="hf: text 1 is not ours, from word 2 on"):
        lm.check_texts({"ours": [[4, 5]], "hf": [[4, 5, 6]]})


def test_only_whole_measurements_are_published(lm: ModuleType) -> None:
    """A trial's record goes elsewhere."""
    assert lm.Settings().whole.measured
    assert not lm.Settings(turns=2).whole.measured
    assert not lm.Settings(length=128).whole.measured
    assert not lm.Settings(parts=("writing",)).whole.measured
    large = lm.Settings(mode="utilisation", device="cuda").whole
    assert large.measured and large.record_name == "lm-124m-cuda"
    assert not lm.Settings(mode="utilisation", compiled=False).whole.measured
    assert lm.Settings(device="cuda").whole.record_name == "lm-benchmark-cuda"
