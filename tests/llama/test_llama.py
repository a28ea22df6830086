"""Folders of Llamas: what we write others load, what others write we load."""

import doctest
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

import annotated.llama
from annotated.cli import main
from annotated.data import DataError
from annotated.decoding import greedy
from annotated.language import Sampling, load_language_model, set_up
from annotated.little_language import little_pairs
from annotated.llama import (
    Fields,
    from_llama,
    llama_config,
    llama_weights,
    our_config,
    read_tokenizer,
    special_ids,
    to_llama,
    word_order,
)
from annotated.modern import PRESETS, Config, LanguageModel, Scaling
from annotated.subwords import END, SPECIAL, START, Subwords, Words
from annotated.training import write_tensors

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LINES = [pair.source for pair in little_pairs(300, seed=1)]
ODD = ["naïve — 猫\n", "</s> <s><pad> <unk>", "  two  spaces ", "<|end|>", "⟨s⟩ x"]
SMALL = Config(layers=2, d_model=24, d_ff=40, heads=6, kv_heads=2, longest=256)
STRETCHED = Scaling(8.0, 1.0, 4.0, 32)
KINDS = [
    pytest.param({}, id="grouped, tied"),
    pytest.param({"tied": False}, id="untied"),
    pytest.param({"kv_heads": 6}, id="no groups"),
    pytest.param({"kv_heads": 1, "rope": 500_000.0, "eps": 1e-6}, id="other base"),
    pytest.param({"scaling": STRETCHED}, id="stretched"),
    pytest.param({"scaling": STRETCHED, "tied": False}, id="stretched, untied"),
]


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """On one thread, and without the library's messages."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    """A small vocabulary."""
    return Subwords.learn(LINES, 300, progress=False)


def build(vocab: int, **settings: Any) -> LanguageModel:
    """A model with weights of a size that matters."""
    torch.manual_seed(0)
    model = LanguageModel(replace(SMALL, **settings), vocab)
    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.15 if parameter.dim() > 1 else 0.25
            parameter.add_(torch.randn_like(parameter) * size)
    return model.eval()


def logits(model: LanguageModel, ids: Tensor) -> Tensor:
    """What may follow each word."""
    with torch.no_grad():
        found: Tensor = model.output(model.read(ids)[0])
    return found


def ours_written(model: LanguageModel, prompt: Tensor) -> list[int]:
    """Our greedy text, with our cache."""
    lengths = torch.tensor([prompt.shape[1]])
    return list(greedy(model, prompt, lengths, max_length=25)[0][0].ids)


def theirs_written(llama: Any, prompt: Tensor, end: int, **options: Any) -> list[int]:
    """Theirs, with theirs, END left out."""
    asked = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 25}
    text = llama.generate(prompt, **asked, **options)[0, prompt.shape[1] :].tolist()
    return text[: text.index(end)] if end in text else text


# Out


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_we_write(
    subwords: Subwords, kind: dict[str, Any], tmp_path: Path
) -> None:
    """Same logits to 1e-5, same words by the folder's own settings, from the text."""
    model = build(len(subwords), **kind)
    folder = to_llama(model, subwords, tmp_path / "new" / "llama")
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(llama) is transformers.LlamaForCausalLM
    for line in [*LINES[:4], *ODD]:
        ids = tokenizer(line, return_tensors="pt").input_ids
        assert ids[0].tolist() == subwords.encode(line)
        with torch.no_grad():
            wanted = llama(ids).logits
        assert wanted.std() > 0.3
        torch.testing.assert_close(logits(model, ids), wanted, rtol=0.0, atol=1e-5)
        assert ours_written(model, ids) == theirs_written(llama, ids, END)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(
    subwords: Subwords, kind: dict[str, Any], tmp_path: Path
) -> None:
    """To the last bit; a second folder has the same bytes; the model is left alone."""
    model = build(len(subwords), **kind).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    one = to_llama(model, subwords, tmp_path / "one")
    assert model.training
    again, words = from_llama(one)
    assert not again.training and again.config == model.config
    assert words.to_json() == subwords.to_json()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(model.state_dict()[name], before[name]), name
    other = to_llama(again, words, tmp_path / "other")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_all_of_their_weights_are_given() -> None:
    """Nothing is left to their initialisation, and nothing is left over."""
    for tied in (True, False):
        model = build(40, tied=tied)
        config = transformers.LlamaConfig(**llama_config(model.config, 40))
        theirs = transformers.LlamaForCausalLM(config).state_dict()
        given = llama_weights(model.state_dict(), model.config)
        assert theirs.keys() - given.keys() == ({"lm_head.weight"} if tied else set())
        assert given.keys() <= theirs.keys()
        assert all(theirs[name].shape == t.shape for name, t in given.items())


def test_sixteen_bits(subwords: Subwords, tmp_path: Path) -> None:
    """Half the bytes; loaded as such elsewhere, and here as asked."""
    model = build(len(subwords))
    folder = to_llama(model, subwords, tmp_path / "half", "bf16")
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert llama.dtype == torch.bfloat16
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        again, _ = from_llama(folder, precision)  # type: ignore[arg-type]
        for name, tensor in again.state_dict().items():
            assert tensor.dtype == dtype
            assert torch.equal(tensor.bfloat16(), model.state_dict()[name].bfloat16())
        found = logits(again, torch.tensor([subwords.encode(LINES[0])]))
        assert found.dtype == dtype and found.isfinite().all()


def test_whole_words(tmp_path: Path) -> None:
    """A closed vocabulary goes out too, and comes back with the same numbers."""
    words = Words.learn(LINES)
    folder = to_llama(build(len(words)), words, tmp_path / "words")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    _, again = from_llama(folder)
    for line in LINES[:20]:
        assert tokenizer(line).input_ids == words.encode(line) == again.encode(line)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"norm": "post"}, "norm is post: each Llama has norm pre"),
        ({"positions": "learned"}, "positions is learned"),
        ({"positions": "sinusoids"}, "positions is sinusoids"),
        ({"gate": "gelu"}, "gate is gelu"),
        ({"gate": "none"}, "gate is none"),
        ({"rms": False}, "rms is False"),
        ({"bias": True}, "bias is True"),
        ({"rope": 0.0}, "rope is 0"),
    ],
)
def test_refuses_what_no_llama_is(
    subwords: Subwords, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """With the setting, before anything is written."""
    model = LanguageModel(replace(SMALL, **settings), len(subwords))
    with pytest.raises(DataError, match=said):
        to_llama(model, subwords, tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_refuses_another_vocabulary(subwords: Subwords, tmp_path: Path) -> None:
    """One of another size, and one with a special word in it."""
    model = build(len(subwords) + 1)
    with pytest.raises(DataError, match="give the vocabulary it was trained with"):
        to_llama(model, subwords, tmp_path / "none")
    odd = Words(["a", SPECIAL[END]])
    with pytest.raises(DataError, match="one of <pad>, <s>, </s> as a word"):
        to_llama(build(len(odd)), odd, tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written(
    subwords: Subwords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk and Ctrl-C leave nothing; a folder that is there is left alone."""
    model = build(len(subwords))
    for problem in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(*_: Any, problem: BaseException = problem) -> None:
            raise problem

        monkeypatch.setattr(annotated.llama, "save_file", fail)
        with pytest.raises((DataError, KeyboardInterrupt), match=r"No space|^$"):
            to_llama(model, subwords, tmp_path / "new")
        assert not list(tmp_path.iterdir())
    (tmp_path / "old").mkdir()
    with pytest.raises(DataError, match="is there already"):
        to_llama(model, subwords, tmp_path / "old")
    assert not list((tmp_path / "old").iterdir())


# In


def byte_level() -> tokenizers.Tokenizer:
    """A vocabulary as Llama 3 has it: special words behind all others."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(LINES, trainer)
    library.add_special_tokens(["<|begin|>", "<|end|>", "<|pause|>", "<|turn|>"])
    library.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 300)]
    )
    return library


def with_fallback() -> tokenizers.Tokenizer:
    """One as Llama 2 has it: special words in front, unknown letters in bytes."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    library = tokenizers.Tokenizer(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<unk>", "<s>", "</s>", *fallback],
        show_progress=False,
    )
    library.train_from_iterator(LINES, trainer)
    saved = json.loads(library.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(saved))


def gpt_like() -> tokenizers.Tokenizer:
    """One as SmolLM2 has it: one word that begins and ends, others beside it."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|text|>", "<|im_start|>", "<|im_end|>", "<repo>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(LINES, trainer)
    return library


Foreign = Callable[..., tuple[Any, tokenizers.Tokenizer, Path]]


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """A Llama with random weights, its vocabulary and its folder, none of it ours."""

    def make(
        library: tokenizers.Tokenizer, shards: str = "1GB", **settings: Any
    ) -> tuple[Any, tokenizers.Tokenizer, Path]:
        folder = tmp_path / "foreign"
        torch.manual_seed(3)
        config = transformers.LlamaConfig(
            **{
                "vocab_size": library.get_vocab_size(),
                "hidden_size": 24,
                "intermediate_size": 40,
                "num_hidden_layers": 2,
                "num_attention_heads": 6,
                "num_key_value_heads": 3,
                "initializer_range": 0.15,
                "attn_implementation": "eager",
            }
            | settings
        )
        llama = transformers.LlamaForCausalLM(config).eval()
        llama.save_pretrained(folder, max_shard_size=shards)
        library.save(str(folder / "tokenizer.json"))
        return llama, library, folder

    return make


VOCABULARIES = [
    pytest.param(
        byte_level,
        {"bos_token_id": 300, "eos_token_id": [301, 303], "pad_token_id": None},
        [302, 300, 301],
        id="Llama 3",
    ),
    pytest.param(
        byte_level,
        {"bos_token_id": 300, "eos_token_id": 301, "pad_token_id": 303},
        [303, 300, 301],
        id="with padding",
    ),
    pytest.param(
        byte_level,
        {"bos_token_id": 300, "eos_token_id": 301, "pad_token_id": 305}
        | {"vocab_size": 310},
        [305, 300, 301],
        id="rows without words",
    ),
    pytest.param(
        with_fallback,
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1},
        [0, 1, 2],
        id="Llama 2",
    ),
    pytest.param(
        gpt_like,
        {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2},
        [2, 1, 0],
        id="SmolLM2",
    ),
]


@pytest.mark.parametrize(("library", "settings", "special"), VOCABULARIES)
@pytest.mark.parametrize("tied", [True, False])
def test_reads_what_transformers_writes(
    foreign: Foreign,
    library: Callable[[], tokenizers.Tokenizer],
    settings: dict[str, Any],
    special: list[int],
    tied: bool,
) -> None:
    """Same words, same logits, same text; and all of it again after a way back."""
    llama, theirs, folder = foreign(library(), **settings, tie_word_embeddings=tied)
    model, words = from_llama(folder)
    order = torch.tensor(word_order(special, llama.config.vocab_size))
    assert len(words) == len(order) == len(model.output.weight)
    assert model.config.tied == tied
    for line in [*LINES[:3], "naïve — 猫", "</s> <s>⟨s⟩ x"]:
        ids = torch.tensor([words.encode(line)])
        plain = json.loads(theirs.to_str())
        plain["added_tokens"] = [
            token for token in plain["added_tokens"] if not token["special"]
        ]
        bare = tokenizers.Tokenizer.from_str(json.dumps(plain))
        asked = torch.tensor([bare.encode(line, add_special_tokens=False).ids])
        assert torch.equal(order[ids], asked)
        assert words.decode(ids[0].tolist()) == line
        with torch.no_grad():
            wanted = llama(asked).logits[..., order]
        torch.testing.assert_close(logits(model, ids), wanted, rtol=0.0, atol=1e-5)
        options = {"do_sample": False, "pad_token_id": special[0]}
        options |= {"suppress_tokens": special[:2], "eos_token_id": special[2]}
        text = theirs_written(llama, asked, special[2], **options)
        assert order[ours_written(model, ids)].tolist() == text


@pytest.mark.parametrize(("library", "settings", "special"), VOCABULARIES)
def test_out_again(
    foreign: Foreign,
    library: Callable[[], tokenizers.Tokenizer],
    settings: dict[str, Any],
    special: list[int],
    tmp_path: Path,
) -> None:
    """What was read is written as a model of ours, and transformers agrees."""
    _, _, folder = foreign(library(), **settings)
    model, words = from_llama(folder)
    folder = to_llama(model, words, tmp_path / "again")
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for line in [*LINES[:3], "naïve — 猫"]:
        ids = tokenizer(line, return_tensors="pt").input_ids
        assert ids[0].tolist() == words.encode(line)
        with torch.no_grad():
            wanted = llama(ids).logits
        torch.testing.assert_close(logits(model, ids), wanted, rtol=0.0, atol=1e-5)


def test_reads_shards(foreign: Foreign) -> None:
    """Many files and an index; the same model as from one file."""
    _, _, folder = foreign(byte_level(), "20KB", bos_token_id=300, eos_token_id=301)
    assert len(list(folder.glob("*.safetensors"))) > 3
    one, _ = from_llama(folder)
    whole: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors*"):
        whole |= load_file(path) if path.suffix == ".safetensors" else {}
        path.unlink()
    whole["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(whole, folder / "model.safetensors")
    other, _ = from_llama(folder)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@pytest.mark.parametrize("form", ["rope_scaling", "rope_parameters", "type"])
def test_both_forms_of_rotations(form: str) -> None:
    """Those of transformers 4, of its first versions, and of transformers 5."""
    config = replace(SMALL, rope=500_000.0, scaling=STRETCHED)
    said = llama_config(config, 40)
    if form == "rope_parameters":
        said["rope_parameters"] = {"rope_theta": said.pop("rope_theta")}
        said["rope_parameters"] |= said.pop("rope_scaling")
    elif form == "type":
        said["rope_scaling"]["type"] = said["rope_scaling"].pop("rope_type")
    assert our_config(Fields(Path("config.json"), said)) == config


def test_reads_the_published_shape() -> None:
    """The config.json of Llama 3.2 1B, as far as it describes the model."""
    said = {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "tie_word_embeddings": True,
        "vocab_size": 128256,
    }
    fields = Fields(Path("config.json"), said)
    assert our_config(fields) == PRESETS["llama-3.2-1b"]


def test_what_a_file_does_not_say_is_as_in_transformers() -> None:
    """Read there and here from the same few fields."""
    said = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128}
    said |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    theirs = transformers.LlamaConfig(**said).to_dict()
    fields, whole = (Fields(Path("config.json"), x) for x in (said, theirs))
    assert our_config(fields) == our_config(whole)


@pytest.mark.skipif("ANNOTATED_LLAMA" not in os.environ, reason="names no folder")
def test_a_model_of_yours() -> None:
    """The folder that ANNOTATED_LLAMA names: same words, same logits, same text."""
    folder = Path(os.environ["ANNOTATED_LLAMA"])
    model, words = from_llama(folder)
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    fields = Fields.read(folder / "config.json")
    saved = read_tokenizer(folder / "tokenizer.json", len(words))
    special = special_ids(fields, saved, len(words))
    order = torch.tensor(word_order(special, len(words)))
    for line in ("The capital of France is", "A naïve cat — 猫", "def f(n):\n    "):
        ids = torch.tensor([words.encode(line)])
        asked = tokenizer(line, add_special_tokens=False, return_tensors="pt").input_ids
        assert torch.equal(order[ids], asked)
        with torch.no_grad():
            wanted = llama.eval()(asked).logits[..., order]
        torch.testing.assert_close(logits(model, ids), wanted, rtol=1e-5, atol=1e-4)
        text = theirs_written(
            llama, asked, special[2], do_sample=False, eos_token_id=special[2]
        )
        assert order[ours_written(model, ids)].tolist() == text


# Mistakes


def settings_changed(**changes: Any) -> Callable[[Path], None]:
    """Another config.json; a field that is ... is taken out."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        said = json.loads(path.read_text()) | changes
        said = {name: value for name, value in said.items() if value is not ...}
        path.write_text(json.dumps(said))

    return change


def weights_changed(change: Callable[[dict[str, Tensor]], Any]) -> Callable[..., None]:
    """Another model.safetensors."""

    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return changed


def text_changed(name: str, text: str) -> Callable[[Path], None]:
    """A file with this text."""
    return lambda folder: (folder / name).write_text(text) and None


def tokenizer_changed(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another tokenizer.json."""

    def changed(folder: Path) -> None:
        saved = json.loads((folder / "tokenizer.json").read_text())
        change(saved)
        (folder / "tokenizer.json").write_text(json.dumps(saved))

    return changed


def cut(folder: Path) -> None:
    """The second half of the weights is missing."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(name: str) -> Callable[[Path], None]:
    """A file is missing."""
    return lambda folder: (folder / name).unlink()


Q = "model.layers.1.self_attn.q_proj.weight"
YARN = {"rope_type": "yarn", "factor": 4.0}
HALF = {"rope_type": "llama3", "factor": 4.0}
INDEX = "model.safetensors.index.json"
MISTAKES = {
    "no folder": (removed("config.json"), "config.json: cannot read it"),
    "no JSON": (text_changed("config.json", "{"), "config.json: no JSON"),
    "a list": (text_changed("config.json", "[]"), "not a JSON object"),
    "Qwen": (settings_changed(model_type="qwen2"), "model_type is 'qwen2'"),
    "no type": (settings_changed(model_type=...), "model_type is 'unknown'"),
    "biases": (settings_changed(attention_bias=True), "attention_bias is True"),
    "more biases": (settings_changed(mlp_bias=True), "mlp_bias is True"),
    "gelu": (settings_changed(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "quantised": (
        settings_changed(quantization_config={"quant_method": "fp8"}),
        "quantization_config is",
    ),
    "wide heads": (settings_changed(head_dim=8), "head_dim is 8.*24/6"),
    "yarn": (
        settings_changed(rope_parameters=YARN),
        "rope_type is 'yarn', and of the ways",
    ),
    "half a scaling": (
        settings_changed(rope_parameters=HALF),
        "config.json: has no low_freq_factor",
    ),
    "groups": (settings_changed(num_key_value_heads=4), "kv_heads is 4: give a div"),
    "no layers": (settings_changed(num_hidden_layers=0), "layers is 0: give 1 or"),
    "no heads": (settings_changed(num_attention_heads=0), "heads"),
    "text for a size": (
        settings_changed(hidden_size="24"),
        "hidden_size is '24', expected a whole number",
    ),
    "no size": (settings_changed(intermediate_size=...), "no intermediate_size"),
    "no words": (settings_changed(vocab_size=0), "vocab_size"),
    "no end": (settings_changed(eos_token_id=None), "eos_token_id is None, expected"),
    "end beyond": (settings_changed(eos_token_id=304), "is 304, expected the id"),
    "few rows": (settings_changed(vocab_size=290), "has a word 303"),
    "many rows": (settings_changed(vocab_size=400), "304 x 24 .* describes 400 x 24"),
    "too many layers": (
        settings_changed(num_hidden_layers=3),
        "model.layers.2.input_layernorm.weight is in none of its files",
    ),
    "too few layers": (
        settings_changed(num_hidden_layers=1),
        "has model.layers.1.input_layernorm.weight, and a Llama by this",
    ),
    "no weights": (removed("model.safetensors"), "model.safetensors: cannot read it"),
    "half the weights": (cut, "model.safetensors: cannot read it"),
    "a tensor less": (weights_changed(lambda w: w.pop(Q)), f"{Q} is in none"),
    "a tensor more": (
        weights_changed(
            lambda w: w.update({Q.replace("weight", "bias"): w[Q][0].clone()})
        ),
        "has model.layers.1.self_attn.q_proj.bias, and a Llama",
    ),
    "a tensor cut": (
        weights_changed(lambda w: w.update({Q: w[Q][:12].clone()})),
        f"{Q} has 12 x 24 numbers, float32, .* describes 24 x 24",
    ),
    "whole numbers": (
        weights_changed(lambda w: w.update({Q: w[Q].to(torch.int8)})),
        f"{Q} has 24 x 24 numbers, int8",
    ),
    "another head": (
        weights_changed(lambda w: w.update({"lm_head.weight": torch.ones(304, 24)})),
        "lm_head.weight is not the embedding",
    ),
    "an empty index": (text_changed(INDEX, "{}"), "has no weight_map"),
    "an index that leads out": (
        text_changed(INDEX, '{"weight_map": {"a": "../b.safetensors"}}'),
        "a is in '../b.safetensors', expected the name of a file",
    ),
    "an index of nothing": (
        lambda folder: text_changed(
            INDEX,
            json.dumps(
                {
                    "weight_map": dict.fromkeys(
                        load_file(folder / "model.safetensors"), "gone.safetensors"
                    )
                }
            ),
        )(folder),
        "gone.safetensors: cannot read it",
    ),
    "no tokenizer": (removed("tokenizer.json"), "tokenizer.json: cannot read it"),
    "an odd tokenizer": (text_changed("tokenizer.json", "{}"), "no tokenizer"),
    "a unigram model": (
        tokenizer_changed(
            lambda t: t.update(
                {
                    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]},
                    "added_tokens": [],
                }
            )
        ),
        "holds a Unigram model",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(foreign: Foreign, name: str) -> None:
    """It names the file, and what is wrong in it."""
    break_it, said = MISTAKES[name]
    tied = {"tie_word_embeddings": True}
    _, _, folder = foreign(byte_level(), bos_token_id=300, eos_token_id=301, **tied)
    from_llama(folder)
    break_it(folder)
    with pytest.raises(DataError, match=said) as caught:
        from_llama(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_no_word_to_spare(foreign: Foreign) -> None:
    """One special word, and no row without a word."""
    library = byte_level()
    saved = json.loads(library.to_str()) | {"post_processor": None}
    saved["added_tokens"] = saved["added_tokens"][:1]
    library = tokenizers.Tokenizer.from_str(json.dumps(saved))
    _, _, folder = foreign(library, bos_token_id=300, eos_token_id=300)
    with pytest.raises(DataError, match="there is none to spare"):
        from_llama(folder)
    _, _, folder = foreign(library, bos_token_id=300, eos_token_id=300, vocab_size=303)
    model, words = from_llama(folder)
    assert words.pieces([3 + START]) == [library.decode([1])]
    assert len(model.output.weight) == len(words) == 303


def test_examples_in_the_docstrings() -> None:
    """What a docstring shows is what happens."""
    result = doctest.testmod(annotated.llama)
    assert result.attempted >= 3
    assert result.failed == 0


# The commands


@pytest.fixture
def run(subwords: Subwords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `annotated train lm` leaves, as far as a writer needs it."""
    monkeypatch.chdir(tmp_path)
    model, folder = build(len(subwords), scaling=STRETCHED), Path("runs/small")
    folder.mkdir(parents=True)
    set_up(folder, model.config, subwords, length=64, tokens="tokens")
    write_tensors(folder / "best.safetensors", model.state_dict(), {})
    return folder


def test_a_run_goes_out_and_comes_back(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the two commands, in either precision; the way back changes nothing."""
    before = load_language_model(run)
    assert main("export small --to llama --out abroad".split()) == 0
    assert "abroad: " in capsys.readouterr().out
    assert transformers.AutoModelForCausalLM.from_pretrained("abroad").dtype == (
        torch.float32
    )
    assert main("import abroad --out runs/back".split()) == 0
    after = load_language_model("runs/back")
    assert after.vocabulary.to_json() == before.vocabulary.to_json()
    assert after.model.config == before.model.config
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor)
    assert main("export small --to llama --out thin --precision bf16".split()) == 0
    assert main("import thin --out runs/half --precision bf16".split()) == 0
    sizes = [
        (Path("runs") / name / "best.safetensors").stat().st_size
        for name in ("back", "half")
    ]
    assert 1.8 < sizes[0] / sizes[1] < 2.1
    said = capsys.readouterr()
    assert main("generate --run half --prompt The --longest 5".split()) == 0
    assert capsys.readouterr().out.startswith("The") and not said.err


@pytest.mark.parametrize("begun", [True, False])
def test_a_beginning_before_each_prompt(
    foreign: Foreign, tmp_path: Path, begun: bool
) -> None:
    """Where the vocabulary puts one; then the text is theirs, and stays so outside."""
    library = byte_level()
    if not begun:
        saved = json.loads(library.to_str()) | {"post_processor": None}
        library = tokenizers.Tokenizer.from_str(json.dumps(saved))
    llama, _, folder = foreign(library, bos_token_id=300, eos_token_id=301)
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 0
    writer = load_language_model(tmp_path / "run")
    assert writer.begin == begun
    asked = torch.tensor([library.encode(LINES[0]).ids])
    assert (asked[0, 0] == 300) == begun
    text = theirs_written(
        llama, asked, 301, do_sample=False, suppress_tokens=[300, 302]
    )
    how = Sampling(temperature=0.0, longest=25)
    assert writer.write([LINES[0]], how) == [library.decode(text)]
    again = tmp_path / "again"
    out = ["export", str(tmp_path / "run"), "--to", "llama", "--out", str(again)]
    assert main(out) == 0
    words = transformers.AutoTokenizer.from_pretrained(again)
    ids = words(LINES[0])["input_ids"]
    assert (ids[0] == START) == begun and words.decode(ids[begun:]) == LINES[0]
    assert main(["import", str(again), "--out", str(tmp_path / "back")]) == 0
    assert load_language_model(tmp_path / "back").begin == begun


def test_mistakes_at_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each; nothing is written, and nothing is overwritten."""
    to_llama(build(300), Subwords.learn(LINES, 300, progress=False), "good")
    (Path("good") / "model.safetensors").write_bytes(b"no")
    for line, says in {
        "export none --to llama --out new": "no such folder",
        "export small --to llama --out runs": "is there already",
        "export small --to marian --out new": "source.json",
        "import none --out new": "config.json: cannot read it",
        "import good --out new": "model.safetensors: cannot read it",
        "import good --out runs": "is there already",
    }.items():
        assert main(line.split()) == 2
        error = capsys.readouterr().err
        assert error.startswith("annotated: error: ") and says in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["good", "runs"]
