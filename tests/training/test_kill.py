"""A run that is killed at any moment ends as if it had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from annotated.training import read_metrics

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_minus_nine_at_twenty_random_moments(tmp_path: Path) -> None:
    """Weights, averages, optimizer, random state and metrics, bit for bit."""
    done = subprocess.run(
        [sys.executable, str(HERE / "kill.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20
    cut = sorted(tmp_path.glob("cut-*"))
    assert cut
    for folder in cut:
        whole = tmp_path / f"whole-{folder.name.rpartition('-')[2]}"
        for name in ("last.safetensors", "best.safetensors"):
            ours, theirs = load_file(folder / name), load_file(whole / name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        metrics = [
            [
                {key: value for key, value in row.items() if "second" not in key}
                for row in read_metrics(path)
            ]
            for path in (folder, whole)
        ]
        assert metrics[0] == metrics[1]
        assert sorted(p.name for p in folder.iterdir()) == [
            "best.safetensors",
            "last.safetensors",
            "metrics.jsonl",
        ]
