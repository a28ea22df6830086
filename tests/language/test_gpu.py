"""A language model's commands on a GPU."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from annotated import training
from annotated.cli import main
from annotated.records import read_record

ON_GPU = ["--device", "cuda"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_train_resume_evaluate_generate(
    command: Callable[..., list[str]],
    story: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped and resumed; scores as the record says, and writes as on a CPU."""
    words, step, seen = command(story, tmp_path / "first", *ON_GPU), training.step, []

    def stopping(*inputs: Any) -> None:
        step(*inputs)
        seen.append(1)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step", stopping)
        assert main(words) == 130
    assert main([*words, "--resume"]) == 0
    run = str(tmp_path / "first")
    wanted = read_record(tmp_path / "first" / "first.json")["metrics"]["bits_per_byte"]
    capsys.readouterr()
    assert main(["evaluate", run, "--quiet", *ON_GPU]) == 0
    printed = dict(map(str.split, capsys.readouterr().out.splitlines()))
    assert float(printed["bits_per_byte"]) == pytest.approx(wanted, abs=1e-3)
    for prompts in ([], ["--prompt", ""], ["--prompt", "The", "The army is here"]):
        texts = []
        for device in (["--device", "cpu"], ON_GPU):
            how = ["--run", run, "--longest", "9", "--temperature", "0"]
            assert main(["generate", *how, *device, *prompts]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
