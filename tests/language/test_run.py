"""A language model's run: its work, its score, its writing, and its commands."""

import dataclasses
import doctest
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from annotated import language
from annotated.cli import main
from annotated.data import DataError
from annotated.language import (
    PEAKS,
    Races,
    Sampling,
    TrainLanguage,
    Writer,
    bits_per_byte,
    chances,
    chosen_config,
    continuations,
    draw,
    flops_per_token,
    load_language_model,
    next_words,
    peak_flops,
    score_text,
    utilisation,
)
from annotated.modern import PRESETS, Config, LanguageModel
from annotated.parallel import Batch
from annotated.records import read_record
from annotated.subwords import END, PAD, START, Tokenizer
from annotated.tokens import (
    VOCABULARY,
    Tokens,
    load_tokenizer,
    make_tokens,
    open_tokens,
)
from annotated.training import batch_loss

ROOT = Path(__file__).resolve().parents[2]
Words = Callable[..., list[str]]

# Work


@pytest.mark.parametrize(
    "config",
    [
        Config(2, 48, 96, 6, kv_heads=2),
        Config(1, 32, 80, 4, kv_heads=4, tied=False),
        Config(3, 32, 80, 4, kv_heads=1, gate="none", bias=True, rms=False),
        Config(2, 32, 80, 4, kv_heads=2, rope=0.0, positions="learned", longest=64),
    ],
)
@pytest.mark.parametrize("length", [1, 24])
def test_flops_are_what_torch_counts(config: Config, length: int) -> None:
    """To the last operation, forward and backward."""
    vocab, rows = 90, 3
    ids = torch.randint(3, vocab, (rows, length + 1))
    batch = Batch(ids[:, :0], ids[:, 0], ids[:, :-1], ids[:, 1:])
    model = LanguageModel(config, vocab)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        batch_loss(model, batch)[0].backward()
    wanted = flops_per_token(config, vocab, length) * rows * length
    assert counter.get_total_flops() == wanted


def test_six_operations_a_weight() -> None:
    """For a model of this size the matrices are nearly all of it."""
    config, vocab = PRESETS["lm-124m"], 50_304
    with torch.device("meta"):
        model = LanguageModel(config, vocab)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert flops_per_token(config, vocab, 0) == 6 * matrices


def test_utilisation() -> None:
    """Half of the peak is half; what has no known peak has no share of it."""
    assert utilisation(1e6, 10**9, 2e15) == 0.5
    assert peak_flops("cpu") is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_by_name(
    name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch calls the GPUs."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops("cuda:1") == peak
    assert peak is None or peak in PEAKS.values()


def test_docstrings() -> None:
    """What they show is so."""
    assert doctest.testmod(language).failed == 0


# Bits per byte


def blind(vocab: int) -> LanguageModel:
    """A model for which all words are alike."""
    model = LanguageModel(Config(1, 8, 8, 1, kv_heads=1), vocab).eval()
    torch.nn.init.zeros_(model.output.weight)
    return model


def test_blind_guessing_among_bytes_costs_eight_bits() -> None:
    """A uniform model over 256 words, a byte each."""
    stream = np.random.default_rng(0).integers(1, 256, 101).astype(np.uint16)
    text = Tokens(stream, {"bytes": 100})
    found = score_text(blind(256), text, 16, 64)
    assert abs(found["bits_per_byte"] - 8) < 1e-5
    assert abs(found["perplexity"] - 256) < 1e-2
    assert found["bytes_per_token"] == 1
    assert bits_per_byte(math.log(2) * 800, 100) == pytest.approx(8)


def test_the_same_loss_in_larger_words() -> None:
    """Half as many guesses of twice the bits each are as good; perplexity differs."""
    stream = np.ones(101, np.uint32)
    small = score_text(blind(16), Tokens(stream, {"bytes": 100}), 10, 50)
    large = score_text(blind(256), Tokens(stream, {"bytes": 200}), 10, 50)
    assert small["bits_per_byte"] == pytest.approx(large["bits_per_byte"])
    assert large["perplexity"] == pytest.approx(small["perplexity"] ** 2)


def test_a_score_by_hand(writer: Writer, run: Path, vocabulary: Tokenizer) -> None:
    """Row by row, from the logits."""
    text = open_tokens(run / "tokens", "test", vocabulary)
    ids, nats = torch.tensor(text.ids.tolist()), 0.0
    with torch.no_grad():
        for begin in range(0, len(ids) - 1, 16):
            row = ids[begin : begin + 17]
            logits = writer.model.output(writer.model.read(row[None, :-1])[0])[0]
            nats -= logits.log_softmax(-1).gather(1, row[1:, None]).sum().item()
    wanted = nats / math.log(2) / text.notes["bytes"]
    found = score_text(writer.model, text, 16, 128)["bits_per_byte"]
    assert found == pytest.approx(wanted, rel=1e-5)


# Writing

PROMPTS = ["The", "You must", "", "The army of Spain"]


def plainly(writer: Writer, prompt: str, longest: int) -> str:
    """The likeliest continuation, without a cache."""
    ids = start = writer.vocabulary.encode(prompt) or [END]
    with torch.no_grad():
        for _ in range(longest):
            features = writer.model.read(torch.tensor([ids]))[0]
            logits = writer.model.output(features)[0, -1]
            logits[[PAD, START]] = -math.inf
            if (best := int(logits.argmax())) == END:
                break
            ids = [*ids, best]
    return writer.vocabulary.decode(ids)[len(writer.vocabulary.decode(start)) :]


def test_greedy_with_the_cache_is_greedy_without(writer: Writer) -> None:
    """And in a batch of prompts as alone."""
    how = Sampling(0.0, longest=25)
    wanted = [plainly(writer, prompt, 25) for prompt in PROMPTS]
    assert writer.write(PROMPTS, how) == wanted
    assert [writer.write([prompt], how)[0] for prompt in PROMPTS] == wanted


@pytest.mark.parametrize(
    "how",
    [Sampling(seed=5), Sampling(0.7, top_k=9), Sampling(1.3, top_p=0.8, min_p=0.05)],
)
def test_a_seed_is_a_text(writer: Writer, how: Sampling) -> None:
    """The same seed, the same text; the first prompt's whoever else is written."""
    how = dataclasses.replace(how, longest=20)
    once = writer.write(PROMPTS, how)
    assert writer.write(PROMPTS, how) == once
    assert writer.write(PROMPTS[:1], how) == once[:1]
    assert writer.write(PROMPTS, dataclasses.replace(how, seed=99)) != once
    assert len(set(writer.write(["The"] * 4, how))) > 1


def test_what_is_streamed_is_what_is_written(writer: Writer) -> None:
    """No half letters on the way, nothing lost at the end."""
    how = Sampling(longest=40, seed=1)
    steps = list(writer.stream(PROMPTS, how))
    assert ["".join(new) for new in zip(*steps, strict=True)] == writer.write(
        PROMPTS, how
    )
    assert len(steps) > 10


class Scripted(LanguageModel):
    """Says the words it was told, whatever the prompt."""

    script: list[int]

    def step(self, token, state, memory):  # type: ignore[no-untyped-def]
        logits, state = super().step(token, state, memory)
        logits.fill_(-9.0)
        logits[..., self.script.pop(0)] = 9.0
        return logits, state


def test_letters_of_several_tokens_come_whole(vocabulary: Tokenizer) -> None:
    """And the end of text ends it."""
    model = Scripted(Config(1, 8, 8, 1, kv_heads=1), len(vocabulary)).eval()
    text = "é🙂道!"
    model.script = [*vocabulary.encode(text), END, *[9] * 50]
    steps = [new for (new,) in Writer(model, vocabulary).stream(["A"], Sampling(0.0))]
    assert "".join(steps) == text and "\ufffd" not in "".join(steps)
    assert sorted(set(steps)) == sorted({"", *text})
    assert len(model.script) >= 49


def test_padding_and_start_are_never_drawn(writer: Writer) -> None:
    """They are in the vocabulary, and a hot enough draw would find them."""
    model = LanguageModel(writer.model.config, len(writer.vocabulary)).eval()
    model.output.weight.data.zero_()
    seen: set[int] = set()
    hot = Writer(model, writer.vocabulary)

    def spied(*given: object) -> object:
        for words in continuations(*given):  # type: ignore[arg-type]
            seen.update(words.tolist())
            yield words

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "continuations", spied)
        hot.write(["A"] * 40, Sampling(5.0, longest=60))
    assert len(seen) > 100 and not seen & {PAD, START}


def test_min_p() -> None:
    """A share of the likeliest word's chance, after the temperature."""
    logits = torch.tensor([0.6, 0.25, 0.1, 0.05]).log()
    found = chances(logits, Sampling(min_p=0.3))
    torch.testing.assert_close(found, torch.tensor([60, 25, 0, 0]) / 85)
    hot = chances(logits, Sampling(2.0, min_p=0.3))
    assert (hot > 0).tolist() == [True, True, True, False]
    assert chances(logits, Sampling(0.0)).tolist() == [1, 0, 0, 0]


# A run


def test_the_likeliest_word_needs_no_race() -> None:
    """At temperature 0 who would win it; never PAD or START."""
    logits, race = torch.randn(4, 9), Races(0, 4)[0]
    logits[0, PAD] = logits[1, START] = 10.0
    how, hidden = Sampling(0.0), logits.clone()
    hidden[:, [PAD, START]] = -torch.inf
    winner = draw(chances(hidden, how), race)
    found = next_words(logits, how, race)
    assert torch.equal(found, winner) and not {PAD, START} & set(found.tolist())


def test_guesses_do_not_change_a_text(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one prompt, likeliest or drawn; several are written without."""
    for how in ("--temperature 0", "--seed 4"):
        line = f"generate --run {run} --prompt The --longest 30 {how}"
        told = []
        for ahead in ("0", "1", "6"):
            assert main([*line.split(), "--ahead", ahead]) == 0
            told.append(capsys.readouterr().out)
        assert told[0] == told[1] == told[2] and len(told[0]) > 20
    writer, asked = load_language_model(run), []
    writer.ahead = 6
    monkeypatch.setattr(language, "guessed", lambda *given: asked.append(given))
    assert len(writer.write(["The", "A"], Sampling(longest=4))) == 2 and not asked


def test_the_folder_has_all_that_a_writer_needs(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    wanted = {"config.json", VOCABULARY, "best.safetensors", "last.safetensors"}
    assert wanted | {"metrics.jsonl", "first.json", "tokens"} == names


def test_the_record(run: Path) -> None:
    record = read_record(run / "first.json")
    assert record["command"].startswith("annotated train lm --data")
    assert record["config"]["recipe"]["updates"] == 12
    metrics, model = record["metrics"], load_language_model(run).model
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    vocab = len(load_tokenizer(run / VOCABULARY))
    assert metrics["flops_per_token"] == flops_per_token(model.config, vocab, 16)
    assert 1 < metrics["bits_per_byte"] < 8 and "mfu" not in metrics


def test_evaluate(run: Path, story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On its own split as the record says, on a file, and on token files."""
    record = read_record(run / "first.json")["metrics"]
    for words, key in (
        ([], "bits_per_byte"),
        (["--split", "val"], "validation_bits_per_byte"),
        (["--data", str(story)], "bits_per_byte"),
        (["--data", str(run / "tokens")], "bits_per_byte"),
    ):
        assert main(["evaluate", str(run), "--quiet", *words]) == 0
        printed = dict(map(str.split, capsys.readouterr().out.splitlines()))
        assert float(printed["bits_per_byte"]) == pytest.approx(record[key], abs=1e-3)


def test_generate(
    run: Path, writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One prompt and several; without a run the newest."""
    words = ["generate", "--run", str(run), "--longest", "9", "--seed", "3"]
    how = Sampling(longest=9, seed=3)
    assert main([*words, "--prompt", "The army"]) == 0
    wanted = "The army" + writer.write(["The army"], how)[0]
    assert capsys.readouterr().out == wanted + "\n"
    assert main([*words, "--prompt", "The", "You"]) == 0
    found = writer.write(["The", "You"], how)
    assert capsys.readouterr().out == f"The{found[0]}\n\nYou{found[1]}\n"


def test_the_newest_run_writes(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Others that lie beside it, translators say, are passed over."""
    monkeypatch.chdir(tmp_path)
    assert main(["generate"]) == 2
    assert "train lm" in capsys.readouterr().err
    shutil.copytree(run, tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "best.safetensors").write_bytes(b"")
    assert main(["generate", "--longest", "3"]) == 0


def test_tokens_once_for_several_runs(
    command: Words, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of `annotated tokenize`; it is not copied."""
    words = ["tokenize", str(story), "--out", str(tmp_path / "tokens")]
    words += ["--tokenizer", "bytes", "--quiet"]
    assert main(words) == 0
    assert "documents" in capsys.readouterr().out
    assert main(words) == 2
    assert "tokenizer.json already" in capsys.readouterr().err
    assert main(command(tmp_path / "tokens", tmp_path / "run")) == 0
    assert not (tmp_path / "run" / "tokens").exists()
    assert main(["evaluate", str(tmp_path / "run")]) == 0


STEPS = """
import os, signal, sys
from annotated import cli, training
step, seen = training.step, []
def stopping(*what):
    step(*what)
    seen.append(1)
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGINT)
training.step = stopping
sys.exit(cli.main(sys.argv[1:]))
"""


def test_resume_in_the_middle_of_an_epoch(
    command: Words,
    story: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C after five updates; what --resume completes is the same, bit for bit."""
    words = command(story, tmp_path / "first")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *words],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 130 and "--resume" in done.stderr, done.stderr
    assert main([*words, "--resume"]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        one, other = (
            load_weights_of(folder / name) for folder in (run, tmp_path / "first")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert main([*words, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().out


COMPILING = """
import sys
import torch
from annotated import cli
asked = []

def compile(method):
    asked.append(method.__name__)
    return whole(method, backend="aot_eager", fullgraph=True)

whole, torch.compile = torch.compile, compile
assert cli.main(sys.argv[1:]) == 0
assert asked == ["features"], asked
"""


def test_a_compiled_training_is_the_same(
    command: Words, story: Path, run: Path, tmp_path: Path, alone: Callable[..., str]
) -> None:
    """One graph without a break; the weights are as without it."""
    alone("-c", COMPILING, *command(story, tmp_path / "first", "--compile"))
    others = load_weights_of(tmp_path / "first" / "best.safetensors")
    for name, tensor in load_weights_of(run / "best.safetensors").items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=1e-4)


def test_a_model_is_as_long_as_its_rows() -> None:
    """What it was trained on is what its configuration says."""
    assert chosen_config(TrainLanguage(length=1500)).longest == 1500
    assert chosen_config(TrainLanguage()).longest == 1024


def load_weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    from safetensors.torch import load_file

    return load_file(path)


def test_two_processes_train_as_one(
    command: Words, story: Path, tmp_path: Path
) -> None:
    """The same batches, two an update, dealt to two processes or to one."""
    found = []
    for n in (1, 2):
        out = tmp_path / f"of-{n}"
        words = command(story, out, "--accumulate", str(2 // n), "--updates", "4")
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc-per-node", str(n), "-m", "annotated", *words]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        done = subprocess.run(start, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        found.append(read_record(out / "first.json")["metrics"]["bits_per_byte"])
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_another_text_does_not_resume(
    command: Words,
    story: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint remembers what it was trained on."""
    shutil.copytree(run, tmp_path / "run")
    other = tmp_path / "other.txt"
    other.write_text(story.read_text(encoding="utf-8") * 2, encoding="utf-8")
    make_tokens([str(other)], tmp_path / "tokens", "subwords", 400, progress=False)
    words = command(tmp_path / "tokens", tmp_path / "run", "--resume")
    assert main(words) == 2
    assert "another run" in capsys.readouterr().err
    (tmp_path / "run" / "first.json").unlink()  # of texts their names count
    assert main(command(other, tmp_path / "run", "--resume")) == 2
    assert "data is" in capsys.readouterr().err
    assert main(command(story, run)) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", VOCABULARY, "best.safetensors"])
def test_a_damaged_folder_is_named(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(b"\x00 no such thing")
    with pytest.raises(DataError, match=str(tmp_path / "run")):
        load_language_model(tmp_path / "run")
    path.unlink()
    with pytest.raises(DataError, match=name):
        load_language_model(tmp_path / "run")


def test_weights_of_another_size(run: Path, tmp_path: Path) -> None:
    """A config.json that was edited by hand."""
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    notes = json.loads(path.read_text(encoding="utf-8"))
    notes["model"]["layers"] = 1
    path.write_text(json.dumps(notes), encoding="utf-8")
    with pytest.raises(DataError, match="do not make a language model"):
        load_language_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train lm --preset base", "lm-tiny"),
        ("train lm --dropout 1", "--dropout is 1"),
        ("train lm --name My_Run", "small letters"),
        ("train lm --threads 0", "--threads 0"),
        ("train lm --data nothing.txt", "nothing.txt"),
        ("train lm --validation 0", "--validation 0: give 1 or more"),
        ("train lm --compile --parallel fsdp", "--compile: for whole models only"),
        ("train lm --data RUN/tokens STORY", "a folder of tokens is all the data"),
        ("train lm --data STORY --length 256 --tokens 128", "--length 256"),
        ("train lm --data STORY --tokenizer no.json", "no.json"),
        ("train lm --data STORY --vocabulary 9", "259 or more"),
        ("tokenize nothing.txt --out there", "nothing.txt"),
        ("generate --run nowhere", "no such folder"),
        ("generate --run RUN --top-p 2", "--top-p: got 2"),
        ("generate --run RUN --min-p 0", "--min-p 0"),
        ("generate --run RUN --temperature -1", "--temperature: got -1"),
        ("generate --run RUN --longest 0", "--longest 0"),
        ("generate --run RUN --ahead -1", "--ahead -1: give 0 or more"),
        ("evaluate RUN --split testing", "--split testing"),
        ("evaluate RUN --data nothing.txt", "nothing.txt"),
    ],
)
def test_bad_options(
    words: str,
    says: str,
    run: Path,
    story: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line that names the option or the file; no weights are written."""
    monkeypatch.chdir(tmp_path)
    line = words.replace("STORY", str(story)).replace("RUN", str(run))
    assert main([*line.split(), *["--quiet"] * line.startswith(("train", "tok"))]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
