"""A run's folder: what train leaves, translate and evaluate find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from annotated.cli import main
from annotated.data import DataError
from annotated.records import read_record
from annotated.subwords import Words
from annotated.translation import (
    PRESETS,
    Train,
    Translator,
    bleu_scores,
    build_model,
    chosen_model,
    validation_score,
)

PAIRS = {
    "en": ["a dog runs", "a cat runs", "two dogs run", "the cat sleeps"] * 10,
    "de": ["ein hund läuft", "eine katze läuft", "zwei hunde laufen", "sie schläft"]
    * 10,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split in ("train", "val", "test"):
        for language, lines in PAIRS.items():
            text = "\n".join(lines) + "\n"
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    words = f"train attention --data {corpus} --pair en-de --out {out} --name first"
    words += " --updates 12 --warmup 4 --d-hidden 16 --vocabulary 300 --tokens 200"
    words += " --beam 2 --threads 1 --quiet"
    return [*words.split(), *more]


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(command(corpus, out)) == 0
    return out


def test_the_folder_has_all_that_a_translator_needs(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    wanted = {"config.json", "source.json", "target.json", "best.safetensors"}
    assert wanted | {"metrics.jsonl", "first.json"} <= names
    assert not any(name.endswith((".pt", ".pkl", ".part", ".tmp")) for name in names)


def test_the_record_says_how_the_scores_were_made(run: Path) -> None:
    record = read_record(run / "first.json")
    assert record["command"].startswith("annotated train attention --data")
    assert "13a" in record["config"]["signatures"]["bleu_cased"]
    assert "case:lc" in record["config"]["signatures"]["bleu_tok_lc"]
    metrics = record["metrics"]
    assert metrics["updates"] == 12 and metrics["train_seconds"] > 0
    model = Translator.load(run).model
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("language", "found", "right"),
    [
        ("zh", "我们在那里工作。", "我们在这里工作。"),
        ("de", "ein Hund rennt.", "Ein Hund läuft."),
    ],
)
def test_validation_scores_as_the_end_does(
    language: str, found: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chinese has no spaces: cut at them, one wrong character is a wrong sentence."""
    words = Words.learn([right])
    options = Train("attention", pair=f"en-{language}", d_hidden=8)
    model = build_model(chosen_model(options), len(words), len(words))
    monkeypatch.setattr(Translator, "translate", lambda *_, **__: [found])
    translator = Translator(model, words, words)
    score = validation_score(options, (["a"], [right]), translator)(model)
    assert score["bleu"] == bleu_scores([found], [right], language)[0]["bleu_tok_lc"]
    assert score["bleu"] > 20


def test_translate_prints_a_line_for_a_line(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["translate", str(run), "a dog runs", "a cat", "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    lines = tmp_path / "in.txt"
    lines.write_text("a dog runs\na cat\n", encoding="utf-8")
    out = tmp_path / "out.txt"
    words = ["translate", str(run), "--input", str(lines), "--output", str(out)]
    assert main([*words, "--quiet"]) == 0
    assert out.read_text(encoding="utf-8").splitlines() == printed


def test_n_best_is_sorted_and_scored(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["translate", str(run), "a dog runs", "--n-best", "3", "--beam", "4"]
    assert main([*words, "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.split("\t")[0]) for line in lines]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_evaluate_prints_signatures(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"evaluate {run} --data {corpus} --pair en-de --beam 1 --quiet"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert "bleu_tok_lc" in printed and "nrefs:1|case:lc" in printed


def test_a_second_run_does_not_overwrite_the_first(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "best.safetensors").read_bytes()
    assert main(command(corpus, run)) == 2
    assert "--resume" in capsys.readouterr().err
    assert (run / "best.safetensors").read_bytes() == before


def test_other_settings_do_not_resume(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    words = command(corpus, run, "--learning-rate", "0.5", "--resume")
    assert main(words) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_translations_do_not_depend_on_the_batch(run: Path) -> None:
    translator, quiet = Translator.load(run), {"progress": False, "beam": 3}
    together = translator.translate(PAIRS["en"][:4], **quiet)
    alone = [translator.translate([line], **quiet)[0] for line in PAIRS["en"][:4]]
    assert together == alone


@pytest.mark.parametrize("name", ["config.json", "source.json", "best.safetensors"])
def test_a_damaged_folder_is_named(run: Path, tmp_path: Path, name: str) -> None:
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"\x00 no such thing")
    with pytest.raises(DataError, match=str(tmp_path)):
        Translator.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        Translator.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train attention --preset lstm", "bahdanau"),
        ("train seq2seq --d-hidden 0", "--d-hidden 0"),
        ("train seq2seq --name My_Run", "small letters"),
        ("train seq2seq --threads 0 --quiet", "--threads 0"),
        ("translate no-such-run hello", "config.json"),
        ("evaluate no-such-run", "config.json"),
    ],
)
def test_bad_options(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "preset"), [(f, p) for f, some in PRESETS.items() for p in some]
)
def test_every_preset_makes_a_model(family: str, preset: str) -> None:
    config = chosen_model(Train(family, preset=preset, d_hidden=8))  # type: ignore[arg-type]
    model = build_model(config, 20, 30)
    assert model.output.out_features == 30


def test_json_config_reads_back(run: Path) -> None:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["family"] == "attention" and config["d_hidden"] == 16


def test_standard_input(run: Path) -> None:
    program = "import sys; from annotated.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "translate", str(run), "--quiet"],
        input="a dog runs\na cat runs\n",
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.gpu
def test_cuda_translates_as_the_cpu(run: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    lines, quiet = PAIRS["en"][:4], {"progress": False}
    there = Translator.load(run, "cuda").translate(lines, device="cuda", **quiet)
    assert there == Translator.load(run).translate(lines, **quiet)
