"""A run's folder: what train leaves, translate and evaluate find."""

import dataclasses
import functools
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from annotated import parallel, translation
from annotated.cli import main
from annotated.data import DataError
from annotated.export import to_bf16
from annotated.little_language import little_pairs
from annotated.modern import Config as Modern
from annotated.parallel import (
    Batch,
    RedrawnBatches,
    StreamedPairs,
    make_batch,
    parallel_lines,
)
from annotated.records import read_record
from annotated.subwords import END, Words
from annotated.transformer import PRESETS as TRANSFORMERS
from annotated.transformer import Config
from annotated.translation import (
    PRESETS,
    SHIPPED,
    Parts,
    Train,
    Translate,
    Translator,
    bleu_scores,
    build_model,
    chosen_model,
    describe,
    find_run,
    sentences,
    train_commands,
    validation_score,
    with_bpe_dropout,
    with_parts,
)

ROOT = Path(__file__).resolve().parents[2]

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
    assert main(["translate", "a dog runs", "a cat", "--run", str(run), "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    lines = tmp_path / "in.txt"
    lines.write_text("a dog runs\na cat\n", encoding="utf-8")
    out = tmp_path / "out.txt"
    words = ["translate", "--input", str(lines), "--output", str(out)]
    assert main([*words, "--run", str(run), "--quiet"]) == 0
    assert out.read_text(encoding="utf-8").splitlines() == printed


def test_n_best_is_sorted_and_scored(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["translate", "a dog runs", "--n-best", "3", "--beam", "4"]
    assert main([*words, "--run", str(run), "--quiet"]) == 0
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


def test_learned_places_come_to_an_end() -> None:
    """A line that fits is translated to the last place; one that does not is named."""
    words = Words.learn(["a b c"])
    torch.manual_seed(0)
    config = Config(1, 16, 16, 2, longest=16, positions="learned")
    model = build_model(config, len(words), len(words)).eval()
    with torch.no_grad():  # it never ends by itself
        model.output.weight[END].fill_(-100)
    translator = Translator(model, words, words)
    quiet = {"progress": False, "beam": 2}
    for line in ("a", "a b c a", "a b c " * 5):
        assert len(translator.search([line], **quiet)[0][0].ids) <= 15
    with pytest.raises(DataError, match=r"line 2 has 16 subwords.* has learned 16 pla"):
        translator.search(["a", "a b " * 8], **quiet)


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
        ("train seq2seq --d-hidden 0", "--d-hidden is 0"),
        ("train transformer --dropout 1", "--dropout is 1"),
        ("train transformer --kv-heads 3", "--kv-heads is 3: give a divisor of heads"),
        ("train transformer --kv-heads 0", "--kv-heads is 0"),
        ("train attention --norm-place pre", "--norm-place: attention has no such"),
        ("train transformer --d-hidden 8", "no recurrent layer"),
        ("train transformer --data little --pair en-fr --stream", "--stream: little"),
        ("train transformer --data wmt14 --vocabulary-lines 0", "wmt14/train.en"),
        ("train transformer --lowercase --start runs/a", "vocabulary of --start"),
        ("train seq2seq --lowercase --tokenizer a.json", "vocabulary of --tokenizer"),
        ("train attention --lowercase --data little --pair en-fr", "words whole"),
        ("train attention --bpe-dropout 0.1 --data little --pair en-fr", "words whole"),
        ("train transformer --bpe-dropout 0.1 --data wmt14", "a stream is read"),
        ("train seq2seq --bpe-dropout 1.1", "a share, 0 to 1"),
        ("train seq2seq --name My_Run", "small letters"),
        ("train seq2seq --threads 0 --quiet", "--threads 0"),
        ("train transformer --beam 0", "--beam 0: give 1 or more"),
        ("train transformer --updates 0", "updates is 0: give 1 or more"),
        ("train transformer --learning-rate nan", "learning_rate is nan"),
        ("train transformer --betas 0.9 2", "betas are (0.9, 2.0): give two from 0"),
        ("train transformer --seed -1", "seed is -1: give 0 or more"),
        ("translate hello --length-penalty nan", "--length-penalty: 0 or more"),
        ("translate hello --device cuda", "torch finds no CUDA GPU"),
        ("evaluate --device cuda", "torch finds no CUDA GPU"),
        ("translate hello --run no-such-run", "no-such-run: no such folder, and runs/"),
        ("evaluate no-such-run", "`annotated train` puts runs there"),
    ],
)
def test_bad_options(
    words: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANNOTATED_DATA", str(tmp_path))
    monkeypatch.setenv("ANNOTATED_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(words.split()) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "preset"), [(f, p) for f, some in PRESETS.items() for p in some]
)
def test_every_preset_makes_a_model(family: str, preset: str) -> None:
    config = chosen_model(Train(family, preset=preset))  # type: ignore[arg-type]
    with torch.device("meta"):
        model = build_model(config, 20, 30)
    assert model.output.out_features == 30


WHOLE = Parts("rms", "pre", "rotary", "swiglu", 2, "no")
FIRST = Parts("layer", "post", "sinusoids", "relu", 4, "yes")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_parts_there_and_back(name: str) -> None:
    """All parts at once, then those of 2017 again; weights stay about as many."""
    plain = TRANSFORMERS[name]
    modern = with_parts(plain, WHOLE)
    assert isinstance(modern, Modern) and modern.dropout == plain.dropout
    first = dataclasses.replace(FIRST, kv_heads=plain.heads)
    assert with_parts(modern, first) == with_parts(plain, Parts()) == plain
    kept = with_parts(plain, Parts(network="swiglu"))
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in build_model(config, 20, 20).parameters())
            for config in (plain, kept)
        ]
    assert counts[1] == pytest.approx(counts[0], rel=0.005)


def test_the_modern_preset_has_all_parts() -> None:
    """What the options make of tiny, and what they take away again."""
    tiny, modern = (PRESETS["transformer"][name] for name in ("tiny", "tiny-modern"))
    words = Train("transformer", preset="tiny", parts=WHOLE)
    assert chosen_model(words) == modern
    assert chosen_model(Train("transformer", preset="tiny-modern", parts=FIRST)) == tiny
    without = Train("transformer", preset="tiny-modern", dropout=0.5)
    assert chosen_model(without) == dataclasses.replace(modern, dropout=0.5)


@pytest.mark.parametrize(
    "parts",
    [
        "--norm rms",
        "--norm-place pre",
        "--positions rotary",
        "--positions learned",
        "--network swiglu",
        "--network glu",
        "--kv-heads 1",
        "--attention-bias no",
        "--norm rms --norm-place pre --positions rotary --network geglu --kv-heads 2",
    ],
)
def test_each_part_trains_and_is_loaded(
    parts: str,
    corpus: Path,
    tmp_path: Path,
    stepped: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From its folder the same logits, by steps as all at once."""
    monkeypatch.setitem(PRESETS["transformer"], "mini", Config(2, 16, 24, 4, 0.1))
    trained, measure = [], translation.measure

    def keep(options: Train, lines: Any, translator: Translator, *more: Any) -> Any:
        trained.append(translator.model)
        return measure(options, lines, translator, *more)

    monkeypatch.setattr(translation, "measure", keep)
    words = f"train transformer --preset mini --data {corpus} --name part --updates 2"
    words += f" --out {tmp_path / 'run'} --warmup 1 --vocabulary 300 --tokens 200"
    words += f" --beam 2 --threads 1 --quiet {parts}"
    assert main(words.split()) == 0
    loaded = Translator.load(tmp_path / "run")
    assert loaded.model.config == trained[0].config != PRESETS["transformer"]["mini"]
    record = read_record(tmp_path / "run" / "part.json")
    assert record["config"]["model"] == describe(loaded.model.config)
    sides = map(loaded.source.encode_all, PAIRS.values())
    batch, before, after = make_batch(*sides), trained[0].eval(), loaded.model
    with torch.no_grad():
        forced = after.output(after.features(batch))
        assert torch.equal(forced, before.output(before.features(batch)))
        torch.testing.assert_close(stepped(after, batch)[0], forced)
    assert main(["translate", "a dog runs", "--run", str(tmp_path / "run")]) == 0
    run = str(tmp_path / "run")
    assert main(["evaluate", run, "--data", str(corpus), "--beam", "1"]) == 0


def test_json_config_reads_back(run: Path) -> None:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["family"] == "attention" and config["d_hidden"] == 16


def test_standard_input(run: Path) -> None:
    program = "import sys; from annotated.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "translate", "--run", str(run), "--quiet"],
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


def test_a_finished_run_is_not_measured_again(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert main(command(corpus, run, "--resume")) == 0
    assert capsys.readouterr().out == f"{run}: finished already\n"
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


# The model that comes with the book


@pytest.fixture(scope="module")
def small(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a Transformer, which has one vocabulary for both sides."""
    out = tmp_path_factory.mktemp("runs") / "small"
    words = f"train transformer --data {corpus} --pair en-de --out {out} --name small"
    words += " --updates 3 --warmup 1 --vocabulary 300 --tokens 200 --beam 1"
    words += " --threads 1 --quiet"
    assert main(words.split()) == 0
    return out


@pytest.fixture
def shipped(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the book that brings this model along."""
    folder = tmp_path / "models" / SHIPPED
    to_bf16(small, folder)
    monkeypatch.setattr(
        translation, "model_folders", lambda: [Path("nowhere"), folder.parent]
    )
    return folder


def test_one_vocabulary_for_both_sides_is_written_once(small: Path, run: Path) -> None:
    assert not (small / "target.json").exists() and (run / "target.json").exists()
    translator = Translator.load(small)
    assert translator.source is translator.target


def test_a_run_that_has_both_vocabularies_loads(small: Path, tmp_path: Path) -> None:
    for path in small.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "target.json").write_bytes((small / "source.json").read_bytes())
    one, other = (Translator.load(folder) for folder in (small, tmp_path))
    lines, quiet = PAIRS["en"][:4], {"progress": False}
    assert one.translate(lines, **quiet) == other.translate(lines, **quiet)


def test_without_a_run_the_shipped_model_answers(
    shipped: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", "a dog runs", "--quiet"]) == 0
    alone = capsys.readouterr().out
    named = ["translate", "a dog runs", "--run", str(shipped), "--quiet"]
    assert main(named) == 0
    assert capsys.readouterr().out == alone
    assert main(["evaluate", "--data", str(corpus), "--beam", "1", "--quiet"]) == 0
    assert "bleu_cased" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["translate hello", "evaluate", "export --out new"])
def test_a_copy_without_the_model_says_so(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "model_folders", lambda: [Path("nowhere")])
    assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert SHIPPED in message and "annotated train" in message


def test_a_folder_where_a_sentence_should_be(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", str(run), "hello"]) == 2
    assert f"--run {run}" in capsys.readouterr().err


def test_a_run_by_its_name(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    assert main(["translate", "a dog runs", "--run", "mine", "--quiet"]) == 0


def test_who_types_sentences_is_told_how_to_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a keyboard the command says what it waits for; in a pipe it says nothing."""
    typed = io.StringIO("A dog.\nA cat.\n")
    monkeypatch.setattr("sys.stdin", typed)
    assert sentences(Translate()) == ["A dog.", "A cat."]
    assert capsys.readouterr().err == ""
    typed.seek(0)
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    assert sentences(Translate()) == ["A dog.", "A cat."]
    assert "Ctrl-D" in capsys.readouterr().err


def test_a_run_that_is_not_there_brings_the_names_of_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped name is answered with the right ones."""
    monkeypatch.chdir(tmp_path)
    for name in ("second", "first"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").touch()
    with pytest.raises(DataError, match=r"frist: .* runs/ has first, second"):
        find_run(Path("frist"))
    assert find_run(Path("first")) == Path("runs/first")


@pytest.mark.skipif(
    not (ROOT / "models" / SHIPPED).is_dir(), reason="this copy has no model yet"
)
def test_the_model_in_the_repository() -> None:
    """Small enough for a repository, and found; what it says is German."""
    folder = find_run(None)
    assert folder == ROOT / "models" / SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8e6
    (said,) = Translator.load(folder).translate(["A dog runs."], progress=False)
    assert "Hund" in said


# Text that does not fit


def wmt14(folder: Path) -> Path:
    """A small stand-in for WMT14, with the holes that text from the web has."""
    rows = little_pairs(600, seed=2, max_depth=1)
    sides = {"en": [row.source for row in rows], "de": [row.target for row in rows]}
    (folder / "wmt14").mkdir()
    for language, lines in sides.items():
        holes = ["", "word " * 1500] if language == "de" else ["x", "y"]
        splits = {"newstest2013": lines[:8], "newstest2014": lines[8:16]}
        for split, some in (splits | {"train": lines + holes}).items():
            path = folder / "wmt14" / f"{split}.{language}.gz"
            path.write_bytes(gzip.compress("\n".join([*some, ""]).encode()))
    return folder


def streaming(out: Path, updates: int, *more: str) -> list[str]:
    words = f"train transformer --data wmt14 --pair en-de --updates {updates}"
    words += f" --out {out} --name wmt --vocabulary 300 --vocabulary-lines 200"
    words += " --tokens 200 --warmup 10 --beam 1 --threads 1 --quiet --preset mini"
    return [*words.split(), *more]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in as the data folder, a model to match, and pools of 100 pairs."""
    monkeypatch.setenv("ANNOTATED_DATA", str(wmt14(tmp_path)))
    monkeypatch.setitem(PRESETS["transformer"], "mini", Config(1, 16, 32, 2))
    pools = functools.partial(StreamedPairs, pool=100)
    monkeypatch.setattr(translation, "StreamedPairs", pools)
    # French stands in for German.
    monkeypatch.setattr(parallel, "check_language", lambda *_: None)
    return tmp_path


def test_wmt14_is_streamed(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred updates over several pools; the training split is never a list."""
    splits = []

    def read(data: str, pair: str, split: str) -> tuple[list[str], list[str]]:
        splits.append(split)
        return parallel_lines(data, pair, split)

    monkeypatch.setattr(translation, "parallel_lines", read)
    assert main(streaming(web / "run", 100)) == 0
    assert splits == ["newstest2013", "newstest2014"]
    record = read_record(web / "run" / "wmt.json")
    assert record["metrics"]["updates"] == 100
    assert record["config"]["split"] == "newstest2014"
    assert not (web / "run" / "target.json").exists()


def press_at(monkeypatch: pytest.MonkeyPatch, source: Any, at: int) -> list[Any]:
    """Interrupt the first run that reads batch `at` of an epoch; who it was."""
    batches, once = source.epoch, []

    def pressed(self: Any, *place: int, **more: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches(self, *place, **more)):
            if number == at and not once:
                once.append(self)
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(source, "epoch", pressed)
    return once


def assert_same_weights(one: Path, other: Path) -> None:
    """Two runs have ended with the same model, to the bit."""
    first, second = (Translator.load(run).model.state_dict() for run in (one, other))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_stream_goes_on_in_its_middle(
    web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the second pool; then the same weights as without."""
    assert main(streaming(web / "whole", 60)) == 0
    pressed = press_at(monkeypatch, StreamedPairs, 30)
    assert main(streaming(web / "cut", 60)) == 130
    assert pressed[0].place[0] >= 1
    before = (web / "cut" / "source.json").stat().st_mtime_ns
    assert main(streaming(web / "cut", 60, "--resume")) == 0
    assert (web / "cut" / "source.json").stat().st_mtime_ns == before
    assert_same_weights(web / "whole", web / "cut")


def test_any_folder_can_be_streamed_with_a_given_vocabulary(
    corpus: Path, small: Path, tmp_path: Path
) -> None:
    words = f"train transformer --data {corpus} --stream --out {tmp_path / 'run'}"
    words += f" --tokenizer {small / 'source.json'} --name given --updates 2"
    words += " --tokens 200 --beam 1 --threads 1 --quiet"
    assert main(words.split()) == 0
    given = (small / "source.json").read_bytes()
    assert (tmp_path / "run" / "source.json").read_bytes() == given
    record = read_record(tmp_path / "run" / "given.json")
    assert record["config"]["stream"] is True


def test_a_run_starts_where_another_ended(
    corpus: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights and words, not first values; a run of another shape is refused."""
    words = f"train transformer --data {corpus} --start {small} --name more"
    words += " --updates 1 --warmup 0 --ema 0 --learning-rate 1e-9 --tokens 200"
    words += " --dropout 0.5 --beam 1 --threads 1 --quiet"
    assert main([*words.split(), "--out", str(tmp_path / "more")]) == 0
    more = tmp_path / "more"
    assert (more / "source.json").read_bytes() == (small / "source.json").read_bytes()
    first, second = (Translator.load(folder).model for folder in (small, more))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    record = read_record(more / "more.json")
    assert record["config"]["start"] == "small"
    assert "--start" in record["command"]
    capsys.readouterr()
    for others, says in {
        "--preset small": "its d_model is 128, and this model's is 256",
        "--norm-place post": "its norm is pre, and this model's is post",
        "--positions rotary": "its family is transformer, and this model's is modern",
    }.items():
        line = [*words.split(), *others.split(), "--out", str(tmp_path / "no")]
        assert main(line) == 2
        assert says in capsys.readouterr().err
    (more / "config.json").write_text("{}", encoding="utf-8")
    line = words.replace(str(small), str(more)).split()
    assert main([*line, "--out", str(tmp_path / "no")]) == 2
    assert "config.json: no configuration" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_small_letters_are_kept_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Capitals make no difference to what follows; a run without it can't go on."""
    for language, lines in PAIRS.items():
        for split in ("train", "val", "test"):
            path = tmp_path / f"{split}.{language}"
            path.write_text("\n".join(map(str.title, lines)), encoding="utf-8")
    out = tmp_path / "run"
    words = f"train transformer --data {tmp_path} --out {out} --name low --updates 2"
    words += " --warmup 1 --vocabulary 300 --tokens 200 --beam 1 --threads 1 --quiet"
    assert main([*words.split(), "--lowercase"]) == 0
    assert read_record(out / "low.json")["config"]["lowercase"] is True
    translator = Translator.load(out)
    assert translator.source.decode(translator.source.encode("A DOG")) == "a dog"
    capsys.readouterr()
    assert main(["translate", "A Dog RUNS", "a dog runs", "--run", str(out)]) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one == other == one.lower()
    assert main([*words.split(), "--resume"]) == 2
    assert "lowercase" in capsys.readouterr().err
    again = words.replace(str(out), f"{tmp_path / 'again'} --start {out}")
    assert main(again.split()) == 0
    assert read_record(tmp_path / "again" / "low.json")["config"]["lowercase"] is True


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("transformer", 0.1),
        ("transformer --bpe-dropout 0", 0.0),
        ("transformer --data little --pair en-fr", 0.0),
        ("transformer --data wmt14", 0.0),
        ("transformer --tokenizer source.json", 0.0),
        ("transformer --start runs/first", 0.0),
        ("attention", 0.0),
        ("attention --bpe-dropout 0.2", 0.2),
    ],
)
def test_merges_are_passed_over_unasked(words: str, share: float) -> None:
    """By a transformer that learns subwords of its own from a text at hand."""
    options = tyro.cli(train_commands(), args=words.split())
    assert with_bpe_dropout(options).bpe_dropout == share


def test_a_run_with_bpe_dropout_goes_on_where_it_was(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Interrupted in an epoch; then the same weights as without, and no other cuts."""
    words = f"train transformer --data {corpus} --warmup 1 --vocabulary 300 --tokens 80"
    words += " --beam 1 --threads 1 --quiet --updates 40 --bpe-dropout"

    def run(name: str, share: str, *more: str) -> int:
        out = ("--out", str(tmp_path / name), "--name", name)
        return main([*words.split(), share, *out, *more])

    assert run("whole", "0.1") == 0
    config = read_record(tmp_path / "whole" / "whole.json")["config"]
    assert config["bpe_dropout"] == 0.1
    assert press_at(monkeypatch, RedrawnBatches, 3) == []
    assert run("cut", "0.1") == 130
    assert run("cut", "0.2", "--resume") == 2
    assert "bpe_dropout" in capsys.readouterr().err
    assert run("cut", "0.1", "--resume") == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_a_missing_test_split_is_told_before_training(
    web: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (web / "wmt14" / "newstest2014.de.gz").unlink()
    assert main(streaming(web / "run", 100)) == 2
    assert "wmt14/newstest2014.de" in capsys.readouterr().err
    assert not (web / "run").exists()


def test_resuming_with_another_model_changes_nothing(
    small: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in small.iterdir()}
    words = f"train transformer --data {corpus} --pair en-de --out {small} --name small"
    words += " --updates 3 --warmup 1 --tokens 200 --beam 1 --threads 1 --quiet"
    words += " --preset small --vocabulary 280 --resume"
    assert main(words.split()) == 2
    assert "d_model" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in small.iterdir()} == before
