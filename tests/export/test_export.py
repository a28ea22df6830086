"""What leaves the book is the same model elsewhere: Hugging Face and CTranslate2."""

import copy
import doctest
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import annotated.export
from annotated.cli import main
from annotated.data import DataError
from annotated.decoding import Hypothesis, greedy, search_all
from annotated.export import (
    check_marian,
    marian_channels,
    marian_weights,
    to_bf16,
    to_marian,
)
from annotated.little_language import little_pairs
from annotated.parallel import Batches, make_batch
from annotated.subwords import (
    END,
    START,
    Subwords,
    Tokenizer,
    Words,
    load_tokenizer,
)
from annotated.training import Recipe, train, write_tensors
from annotated.transformer import Config, Transformer, sinusoids
from annotated.translation import (
    PRESETS,
    Translator,
    as_modern,
    build_model,
    write_setup,
)

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SMALL = Config(layers=2, d_model=64, d_ff=128, heads=4, dropout=0.0)
PAIRS = little_pairs(60, seed=1, max_depth=1)
ENGLISH, FRENCH = [p.source for p in PAIRS], [p.target for p in PAIRS]


class Abroad(NamedTuple):
    """A model, its folder, and what Hugging Face makes of the folder."""

    model: Transformer
    vocabulary: Tokenizer
    folder: Path
    marian: Any
    tokenizer: Any


def abroad(model: Transformer, vocabulary: Tokenizer, folder: Path) -> Abroad:
    """Export, and load elsewhere."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model.eval()
    to_marian(model, vocabulary, folder)
    marian = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    kinds = {
        "post": transformers.MarianMTModel,
        "pre": transformers.PegasusForConditionalGeneration,
    }
    assert type(marian) is kinds[model.config.norm]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return Abroad(model, vocabulary, folder, marian, tokenizer)


@pytest.fixture(scope="module", params=["post", "pre"])
def norm(request: pytest.FixtureRequest) -> str:
    """Where the norms stand: a Marian, then a Pegasus."""
    where: str = request.param
    return where


@pytest.fixture(scope="module")
def trained(norm: str, tmp_path_factory: pytest.TempPathFactory) -> Abroad:
    """A model that knows sixty sentences by heart."""
    words = Words.learn(ENGLISH + FRENCH)
    sides = words.encode_all(ENGLISH), words.encode_all(FRENCH)
    torch.manual_seed(0)
    model = Transformer(replace(SMALL, norm=norm), len(words))
    recipe = Recipe(updates=120, learning_rate=3e-3, schedule="linear", warmup=20)
    train(model, Batches(*sides, tokens=600), recipe, progress=False)
    return abroad(model, words, tmp_path_factory.mktemp("trained") / "en-fr")


@pytest.fixture(scope="module")
def fresh(norm: str, tmp_path_factory: pytest.TempPathFactory) -> Abroad:
    """A model with random weights, biases and norms, and subwords."""
    vocabulary = Subwords.learn(ENGLISH + FRENCH, 300, progress=False)
    torch.manual_seed(1)
    config = replace(SMALL, d_model=24, layers=3, heads=3, longest=200, norm=norm)
    model = Transformer(config, len(vocabulary))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return abroad(model, vocabulary, tmp_path_factory.mktemp("fresh") / "deep" / "er")


def logits(one: Abroad) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours and theirs of all pairs, theirs from the text."""
    sides = one.vocabulary.encode_all(ENGLISH), one.vocabulary.encode_all(FRENCH)
    batch = make_batch(*sides)
    read = one.tokenizer(ENGLISH, padding=True, return_tensors="pt")
    begun = batch.target_in.where(batch.target_in != START, len(one.vocabulary))
    with torch.no_grad():
        ours = one.model.output(one.model.features(batch))
        theirs = one.marian(
            input_ids=read.input_ids,
            attention_mask=read.attention_mask,
            decoder_input_ids=begun,
        ).logits
    return ours[batch.target_out != 0], theirs[batch.target_out != 0]


def found(one: Abroad, lines: list[str], **options: Any) -> list[Hypothesis]:
    """Our own best translations."""
    sources = one.vocabulary.encode_all(lines)
    return [
        best for best, *_ in search_all(one.model, sources, progress=False, **options)
    ]


def generated(one: Abroad, lines: list[str], **options: Any) -> list[str]:
    """Hugging Face's translations."""
    read = one.tokenizer(lines, padding=True, return_tensors="pt")
    written = one.marian.generate(
        input_ids=read.input_ids, attention_mask=read.attention_mask, **options
    )
    answers: list[str] = one.tokenizer.batch_decode(written, skip_special_tokens=True)
    return answers


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    result = doctest.testmod(annotated.export)
    assert result.attempted >= 1
    assert result.failed == 0


def test_channels_are_those_of_their_table() -> None:
    """Even and odd widths."""
    modeling = transformers.models.marian.modeling_marian
    for width in (6, 7, 16):
        theirs = modeling.MarianSinusoidalPositionalEmbedding(40, width).create_weight()
        ours = sinusoids(40, width)[:, marian_channels(width)]
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def test_same_logits(trained: Abroad, fresh: Abroad) -> None:
    """To the fifth digit; the word that only they have is never likely.

    In 64 bits there is no rounding to allow for, however large a logit is.
    """
    for one in (trained, fresh):
        ours, theirs = logits(one)
        scale = ours.abs().max()
        assert (theirs[:, :-1] - ours).abs().max() < 1e-5 * max(scale, 1)
        assert (theirs[:, -1] < -9000).all()
        exact = one._replace(
            model=copy.deepcopy(one.model).double(),
            marian=copy.deepcopy(one.marian).double(),
        )
        ours, theirs = logits(exact)
        torch.testing.assert_close(theirs[:, :-1], ours, rtol=0, atol=1e-6)


def test_all_of_their_weights_are_given(fresh: Abroad) -> None:
    """Nothing is left to their initialisation, and nothing is left over."""
    theirs = fresh.marian.state_dict()
    given = marian_weights(fresh.model)
    tied = {"lm_head.weight"} | {
        f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")
    }
    assert given.keys() == theirs.keys() - tied
    for name, tensor in given.items():
        assert torch.equal(tensor, theirs[name]), name


def test_same_beams(trained: Abroad) -> None:
    """Five beams, as the folder says, on what was learned."""
    ours = [trained.vocabulary.decode(best.ids) for best in found(trained, ENGLISH)]
    assert sum(a == b for a, b in zip(ours, FRENCH, strict=True)) >= 55
    assert generated(trained, ENGLISH) == ours


def test_same_greedy_words(fresh: Abroad) -> None:
    """A model that knows nothing writes the same nonsense, byte for byte."""
    lines = ["A mat is small .", "x", "</s> is four characters, <pad> five"]
    ours = [
        fresh.vocabulary.decode(best.ids)
        for best in found(fresh, lines, search=greedy, max_length=30)
    ]
    theirs = generated(fresh, lines, num_beams=1, max_length=32)
    assert theirs == ours


def test_same_ids(trained: Abroad, fresh: Abroad) -> None:
    """Text becomes the same ids, END at the end; specials in a text are text."""
    lines = [*ENGLISH, "naïve — 猫\n", "</s> <s><pad> <unk>", "  two  spaces "]
    for one, some in ((trained, ENGLISH), (fresh, lines)):
        theirs = one.tokenizer(some).input_ids
        assert theirs == [[*ids, 2] for ids in one.vocabulary.encode_all(some)]
        for line, ids in zip(some, theirs, strict=True):
            assert one.tokenizer.decode(ids, skip_special_tokens=True) == line
    with pytest.raises(DataError, match="'giraffe' is not among"):
        trained.vocabulary.encode("giraffe")
    assert trained.tokenizer("giraffe").input_ids == [0, 2]


def test_small_letters_go_along(tmp_path: Path) -> None:
    """Their tokenizer lowers a text as ours does."""
    vocabulary = Subwords.learn(ENGLISH + FRENCH, 300, False, lowercase=True)
    model = Transformer(replace(SMALL, layers=1), len(vocabulary))
    one = abroad(model, vocabulary, tmp_path)
    theirs = one.tokenizer("The CAT is on the Mat .").input_ids
    assert theirs == [*vocabulary.encode("the cat is on the mat ."), END]


def test_ctranslate2(trained: Abroad, tmp_path: Path) -> None:
    """Converts the folder, translates the same, believes the same."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    binary = str(tmp_path / "binary")
    ctranslate2.converters.TransformersConverter(str(trained.folder)).convert(binary)
    engine = ctranslate2.Translator(binary, device="cpu", intra_threads=1)
    tokenizer = trained.tokenizer
    tokens = [tokenizer.convert_ids_to_tokens(tokenizer(s).input_ids) for s in ENGLISH]
    results = engine.translate_batch(
        tokens, beam_size=5, return_scores=True, min_decoding_length=0
    )
    best = found(trained, ENGLISH)
    assert [" ".join(r.hypotheses[0]) for r in results] == [
        trained.vocabulary.decode(one.ids) for one in best
    ]
    for one, result in zip(best, results, strict=True):
        assert abs(one.score - result.scores[0]) < 1e-5
    targets = [tokenizer.convert_ids_to_tokens(ids) for ids in
               trained.vocabulary.encode_all(FRENCH)]  # fmt: skip
    scored = engine.score_batch(tokens, targets)
    for result, one, target in zip(scored, best, targets, strict=True):
        if trained.vocabulary.encode(" ".join(target)) == one.ids:
            assert abs(sum(result.log_probs) - one.log_probability) < 1e-4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"positions": "learned"}, "positions are learned: Marian adds sinusoids"),
        ({"positions": "none"}, "positions are none"),
        ({"rms": True}, "has RMSNorm; Marian has LayerNorm"),
        ({"rope": 1e4, "positions": "none"}, "has rotary positions; Marian"),
        (
            {"gate": "silu", "kv_heads": 2},
            "has gated networks, shared keys and values; ",
        ),
        ({"bias": False}, "has attention without biases; "),
    ],
)
def test_refuses_what_marian_is_not(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """With the reason, before anything is written."""
    words = Words.learn(ENGLISH)
    config = replace(as_modern(SMALL), layers=1, **settings)
    model = Transformer(config, len(words))
    with pytest.raises(DataError, match=said):
        to_marian(model, words, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_chapter_5s_config_with_everything_off(fresh: Abroad) -> None:
    """It is chapter 4's model, and the same tensors come out."""
    model = Transformer(as_modern(fresh.model.config), len(fresh.vocabulary))
    model.load_state_dict(fresh.model.state_dict())
    check_marian(model.config)
    found, wanted = marian_weights(model), marian_weights(fresh.model)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_refuses_another_vocabulary(tmp_path: Path) -> None:
    """And one that has a special word among its own."""
    words = Words.learn(ENGLISH)
    model = Transformer(SMALL, len(words) + 1)
    with pytest.raises(DataError, match="give the vocabulary it was trained with"):
        to_marian(model, words, tmp_path / "none")
    odd = Words([*words.words, "<unk>"])
    with pytest.raises(DataError, match="has one of <unk>"):
        to_marian(model, odd, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_leaves_the_model_as_it_was(fresh: Abroad, tmp_path: Path) -> None:
    """In its mode, with its weights; a second export writes the same bytes."""
    before = {name: t.clone() for name, t in fresh.model.state_dict().items()}
    fresh.model.train()
    to_marian(fresh.model, fresh.vocabulary, tmp_path)
    assert fresh.model.training
    fresh.model.eval()
    for name, tensor in fresh.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    for path in sorted(fresh.folder.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    assert (
        json.loads((tmp_path / "config.json").read_text())["vocab_size"]
        == len(fresh.vocabulary) + 1
    )


# The command


@pytest.fixture
def run(trained: Abroad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `annotated train` leaves, as far as a translator needs it."""
    monkeypatch.chdir(tmp_path)
    words = trained.vocabulary
    write_setup(Path("runs/sixty"), trained.model.config, words, words)
    weights = Path("runs/sixty/best.safetensors")
    write_tensors(weights, trained.model.state_dict(), {"update": 120})
    return Path("runs/sixty")


def test_export_writes_what_to_marian_writes(run: Path, trained: Abroad) -> None:
    """By the run's name as well; the beam goes into the folder."""
    assert main(["export", "sixty", "--to", "marian", "--out", "there"]) == 0
    assert main(["export", str(run), "--out", "again", "--beam", "2"]) == 0
    for path in trained.folder.iterdir():
        assert (Path("there") / path.name).read_bytes() == path.read_bytes()
    settings = json.loads(Path("again/generation_config.json").read_text())
    assert settings["num_beams"] == 2


def test_bf16_is_half_and_translates_the_same(run: Path, trained: Abroad) -> None:
    """Read into 32 bits again; each weight is the nearest number of 16."""
    assert main(["export", str(run), "--to", "bf16", "--out", "models/new"]) == 0
    names = {path.name for path in Path("models/new").iterdir()}
    assert names == {"config.json", "source.json", "best.safetensors"}
    sizes = [(p / "best.safetensors").stat().st_size for p in (run, Path("models/new"))]
    assert sizes[1] < 0.55 * sizes[0]
    translator = Translator.load("models/new")
    for name, tensor in translator.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, trained.model.state_dict()[name].bfloat16().float())
    found = translator.translate(ENGLISH, progress=False)
    assert sum(a == b for a, b in zip(found, FRENCH, strict=True)) >= 55
    again = Translator.load(to_bf16("models/new", "models/again")).model
    for name, tensor in translator.model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_model_with_chapter_5s_parts(
    trained: Abroad, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not for Marian; in half the bytes it stays what it is."""
    words, config = trained.vocabulary, PRESETS["transformer"]["tiny-modern"]
    model = build_model(config, len(words), len(words))
    new = run.with_name("new")
    write_setup(new, config, words, words)
    write_tensors(new / "best.safetensors", model.state_dict(), {})
    assert main(["export", "new", "--out", "there"]) == 2
    assert "RMSNorm, rotary positions, gated" in capsys.readouterr().err
    assert not Path("there").exists()
    assert main(["export", "new", "--to", "bf16", "--out", "half"]) == 0
    assert Translator.load("half").model.config == config


def test_mistakes_are_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and nothing is overwritten."""
    recurrent = PRESETS["attention"]["luong-dot"]
    words = load_tokenizer(run / "source.json")
    model = build_model(recurrent, len(words), len(words))
    write_setup(Path("runs/dot"), recurrent, words, words)
    write_tensors(Path("runs/dot/best.safetensors"), model.state_dict(), {})
    for line, says in {
        "export runs/dot --out new": "a Luong model",
        "export runs/none --out new": "no such folder",
        "export runs/sixty --out runs": "is there already",
        "export runs/sixty --out new --beam 0": "--beam 0",
    }.items():
        assert main(line.split()) == 2
        error = capsys.readouterr().err
        assert error.startswith("annotated: error: ") and says in error
        assert error.count("\n") == 1
    assert not Path("new").exists()
    assert sorted(path.name for path in Path("runs").iterdir()) == ["dot", "sixty"]
