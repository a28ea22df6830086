"""From texts to token files and to packed rows."""

import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from annotated import tokens as module
from annotated.data import DataError
from annotated.parallel import split_of
from annotated.subwords import END, Tokenizer, byte_letters, load_tokenizer
from annotated.tokens import (
    MANY,
    SPLITS,
    VOCABULARY,
    Packed,
    documents,
    fingerprint,
    make_tokens,
    make_vocabulary,
    open_tokens,
    split_documents,
    write_tokens,
)
from annotated.training import Place, groups


def texts(folder: Path, split: str, vocabulary: Tokenizer) -> list[str]:
    """The documents of a split, from its token file."""
    ids = open_tokens(folder, split, vocabulary).ids
    assert ids[0] == END and ids[-1] == END
    rows = np.split(ids, np.flatnonzero(ids == END) + 1)[1:-1]
    return [vocabulary.decode(row.tolist()) for row in rows]


# Token files


def test_round_trip(story: Path, tokens: Path) -> None:
    """What is decoded is the text, part by part, and the JSON counts it."""
    vocabulary = load_tokenizer(tokens / VOCABULARY)
    parts = list(split_documents(documents([story])))
    for split in SPLITS:
        wanted = [text for name, text in parts if name == split]
        assert texts(tokens, split, vocabulary) == wanted
        notes = open_tokens(tokens, split, vocabulary).notes
        assert notes["documents"] == len(wanted) == 2
        assert notes["characters"] == sum(map(len, wanted))
        assert notes["bytes"] == sum(len(text.encode()) for text in wanted)
        size = os.path.getsize(tokens / f"{split}.bin")
        assert size == 2 * notes["tokens"]
    whole = "".join(text for _, text in parts)
    assert whole == "".join(documents([story]))


def test_the_same_text_gives_the_same_files(
    story: Path, tokens: Path, tmp_path: Path
) -> None:
    """Whatever the machine's cores."""
    make_tokens([str(story)], tmp_path / "again", "subwords", 400, progress=False)
    for path in tokens.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_long_documents_are_cut_and_stay_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces and groups are for memory and cores; the text knows nothing of them."""
    monkeypatch.setattr(module, "PIECE", 50)
    monkeypatch.setattr(module, "GROUP", 3)
    text = "word " * 100 + "\n" + "x" * 300 + "\n\n" + "line\n" * 50
    path = tmp_path / "long.txt"
    path.write_text(text, encoding="utf-8")
    vocabulary = make_vocabulary("bytes", 0, [])
    write_tokens([path], tmp_path, vocabulary, progress=False)
    found = [texts(tmp_path, split, vocabulary) for split in SPLITS]
    assert "".join(part for (part,) in found) == text.strip("\n")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=8))
def test_parts_make_the_document(lines: list[str]) -> None:
    """Nothing is lost and nothing is twice, for any text."""
    text = "\n".join(lines)
    assert "".join(part for _, part in split_documents([text])) == text


def test_of_many_documents_each_is_in_one_split() -> None:
    """By its own text: a document that comes twice comes twice into the same."""
    many = [f"Document {n % 150}." for n in range(2 * MANY)]
    parts = list(split_documents(many))
    assert [text for _, text in parts] == many
    assert all(split == split_of(text) for split, text in parts)


def test_two_bytes_or_four(tmp_path: Path, story: Path) -> None:
    """A vocabulary of more than 65,536 words takes four."""
    letters = [*byte_letters().values(), *(f"word{n}" for n in range(66_000))]
    library = tokenizers.Tokenizer(
        models.BPE({w: i for i, w in enumerate(letters)}, [])
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.save(str(tmp_path / "large.json"))
    kind = str(tmp_path / "large.json")
    vocabulary = make_tokens([str(story)], tmp_path / "out", kind, 0, progress=False)
    part = open_tokens(tmp_path / "out", "val", vocabulary)
    assert part.ids.dtype == np.uint32 and len(vocabulary) > 2**16
    assert len(texts(tmp_path / "out", "val", vocabulary)) == 2


def test_a_kill_leaves_nothing_half_written(tmp_path: Path) -> None:
    """What was there before is there still, whole, and nothing that looks new."""
    text = tmp_path / "text.txt"
    text.write_text("A line of text.\n" * 2000, encoding="utf-8")
    program = f"""
import os, signal
from pathlib import Path
from annotated import tokens
class Killed(tokens.TokenWriter):
    def add(self, *piece):
        super().add(*piece)
        self.file.flush()
        if self.notes["documents"]:
            os.kill(os.getpid(), signal.SIGKILL)
tokens.TokenWriter = Killed
tokens.make_tokens([{str(text)!r}], Path({str(tmp_path / "out")!r}), "bytes", 0, False)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left and all(name.endswith(".tmp") for name in left)
    vocabulary = make_vocabulary("bytes", 0, [])
    with pytest.raises(DataError, match="annotated tokenize"):
        open_tokens(tmp_path / "out", "train", vocabulary)
    make_tokens([str(text)], tmp_path / "out", "bytes", 0, progress=False)
    assert texts(tmp_path / "out", "train", vocabulary)[0].startswith("A line")
    assert not list((tmp_path / "out").glob(".*"))


def test_an_error_in_the_middle_leaves_the_old_files(
    tmp_path: Path, tokens: Path
) -> None:
    """A second text that cannot be read to its end."""
    for path in tokens.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in tokens.iterdir()}
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"A line.\n" * 9000 + b"\xff\n")
    vocabulary = load_tokenizer(tokens / VOCABULARY)
    with pytest.raises(DataError, match=r"bad\.txt, line 9001"):
        write_tokens([bad], tmp_path, vocabulary, progress=False)
    bad.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def damaged(path: Path, how: str) -> None:
    """Do something to a token file."""
    data, notes = path.read_bytes(), path.with_suffix(".json")
    if how == "cut short":
        path.write_bytes(data[:-2])
    elif how == "half a token":
        path.write_bytes(data[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif how == "no json":
        notes.unlink()
    elif how == "no file":
        path.unlink()
    else:
        notes.write_text({"not json": "{", "no dtype": "{}", "a list": "[1]"}[how])


@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "half a token",
        "empty",
        "one bit",
        "no json",
        "no file",
        "not json",
        "no dtype",
        "a list",
    ],
)
def test_damage_is_one_line(how: str, tokens: Path, tmp_path: Path) -> None:
    """It names the file and what to do."""
    for path in tokens.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged(tmp_path / "val.bin", how)
    with pytest.raises(DataError, match=r"val\.(bin|json).*annotated tokenize") as info:
        open_tokens(tmp_path, "val", load_tokenizer(tokens / VOCABULARY))
    assert "\n" not in str(info.value)


def test_ids_of_another_vocabulary(tokens: Path) -> None:
    """They would be read as other words, and nothing would fail."""
    with pytest.raises(DataError, match="another vocabulary"):
        open_tokens(tokens, "val", make_vocabulary("bytes", 0, []))


@pytest.mark.parametrize("text", ["", "\n\n\n", "a"])
def test_too_little_text(text: str, tmp_path: Path) -> None:
    """Told by name; no file appears."""
    path = tmp_path / "small.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"small\.txt: too little text"):
        make_tokens([str(path)], tmp_path / "out", "bytes", 0, progress=False)
    assert not list((tmp_path / "out").glob("*"))


# Vocabularies


def gpt2_like(folder: Path) -> Path:
    """A vocabulary with `!` at 0, a merge, and the end of text as the last word."""
    words = [*sorted(byte_letters().values()), "he", "<|endoftext|>"]
    ids = {word: i for i, word in enumerate(words)}
    library = tokenizers.Tokenizer(models.BPE(ids, [("h", "e")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|endoftext|>"])
    library.enable_truncation(5)
    library.save(str(folder / "theirs.json"))
    return folder / "theirs.json"


def test_a_foreign_vocabulary(tmp_path: Path) -> None:
    """The same pieces, three numbers up; special words are text like any other."""
    path = gpt2_like(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.no_truncation()
    ours = make_vocabulary(path, 0, [])
    text = "He, the one! Été 道 \n ends"
    assert ours.encode(text) == [i + 3 for i in theirs.encode(text).ids]
    assert ours.decode(ours.encode(text)) == text
    tricky = "a <|endoftext|> b"
    assert ours.decode(ours.encode(tricky)) == tricky
    assert min(ours.encode("!" + tricky)) > END
    ours.save(tmp_path / "saved.json")
    again = load_tokenizer(tmp_path / "saved.json")
    assert fingerprint(again) == fingerprint(ours) and len(again) == len(ours) == 261


def test_no_vocabulary(tmp_path: Path) -> None:
    """A file that is none, and a kind whose words have no numbers."""
    path = tmp_path / "none.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"none\.json"):
        make_vocabulary(path, 0, [])
    library = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    library.save(str(path))
    with pytest.raises(DataError, match=r"none\.json: a Unigram model"):
        make_vocabulary(path, 0, [])


def test_bytes_are_bytes() -> None:
    """One id a byte, whatever the text."""
    vocabulary = make_vocabulary("bytes", 0, [])
    text = "".join(map(chr, range(1, 300))) + "🙂"
    assert len(vocabulary) == 259
    assert len(vocabulary.encode(text)) == len(text.encode())
    assert vocabulary.decode(vocabulary.encode(text)) == text


# Packed rows


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(8, 200),
    length=st.integers(1, 7),
    rows=st.integers(1, 6),
    epoch=st.integers(0, 3),
)
def test_every_token_once(size: int, length: int, rows: int, epoch: int) -> None:
    """In order: all. Drawn: all but fewer than a row, and each at most once."""
    stream = np.arange(1, size + 1, dtype=np.uint16)
    scored = Packed(stream, length, rows * length, shuffle=False)
    asked = torch.cat([b.target_out.flatten() for b in scored.epoch(epoch)])
    assert asked.tolist() == list(range(2, size + 1))
    drawn = Packed(stream, length, rows * length, seed=1)
    batches = list(drawn.epoch(epoch))
    asked = torch.cat([b.target_out.flatten() for b in batches])
    assert len(asked.unique()) == len(asked) > size - 1 - length
    sizes = {len(b.target_in) for b in batches}
    assert max(sizes) <= rows and max(sizes) - min(sizes) <= 1
    for batch in batches:
        assert batch.target_in.shape[1] == length
        assert (batch.target_out == batch.target_in + 1).all()
        assert batch.tokens == batch.target_out.numel()


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    """Another epoch, another order; an epoch can be entered in the middle."""
    stream = np.arange(1, 500, dtype=np.uint16)
    one, other = (Packed(stream, 8, 32, seed=s) for s in (0, 1))
    first = [b.target_in.tolist() for b in one.epoch(0)]
    assert first == [b.target_in.tolist() for b in one.epoch(0)]
    assert first != [b.target_in.tolist() for b in one.epoch(1)]
    assert first != [b.target_in.tolist() for b in other.epoch(0)]
    for start in (1, 5, len(first)):
        rest = [b.target_in.tolist() for b in one.epoch(0, start=start)]
        assert rest == first[start:]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_together_see_what_one_sees(size: int) -> None:
    """Dealt as the training loop deals: every n-th batch of a group to each."""
    packed = Packed(np.arange(1, 800, dtype=np.uint16), 8, 32)
    whole = [b.target_in.tolist() for b in islice(packed.epoch(0), 16)]
    dealt: list[list[list[list[int]]]] = []
    for group, _, _ in islice(groups(packed, Place(), 4), 4):
        shares = [group[rank::size] for rank in range(size)]
        assert len({len(share) for share in shares}) == 1
        again = [share[i] for i in range(4 // size) for share in shares]
        dealt += [[b.target_in.tolist() for b in again]]
    assert [batch for group in dealt for batch in group] == whole


@pytest.mark.parametrize(
    ("size", "length", "tokens", "says"),
    [
        (5, 8, 16, "5 tokens of text"),
        (50, 0, 16, "--length 0"),
        (50, 32, 9, "--tokens"),
    ],
)
def test_rows_that_cannot_be(size: int, length: int, tokens: int, says: str) -> None:
    """Too little text for one row; a row that is longer than a batch."""
    with pytest.raises(DataError, match=says):
        Packed(np.arange(1, size + 1), length, tokens)


def test_the_json_is_readable(tokens: Path) -> None:
    """By people and by other programs."""
    notes = json.loads((tokens / "train.json").read_text(encoding="utf-8"))
    ids = np.fromfile(tokens / "train.bin", notes["dtype"])
    assert len(ids) == notes["tokens"]
