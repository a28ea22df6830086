"""Vocabularies: the library's cuts, any text and back, files that are not ours."""

import gzip
import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated.data import DataError
from annotated.subwords import (
    END,
    PAD,
    SPECIAL,
    START,
    BPEDropout,
    Subwords,
    Words,
    apply_merges,
    byte_letters,
    learn_merges,
    load_tokenizer,
    split_text,
)

LINES = [
    "The <s> newest lowest widest low lower, 12 of them </s> <pad>.",
    "Straße, café und Tür: 日本語 नमस्ते 👩‍👩‍👧!",
] * 5
SUBWORDS = Subwords.learn(LINES, 400, progress=False)
SMALL = Subwords.learn(LINES, 400, progress=False, lowercase=True)
LETTERS = byte_letters()


def shown(token: bytes) -> str:
    """Show a token as the library does."""
    return "".join(LETTERS[byte] for byte in token)


def assert_same(lines: list[str], size: int, probe: list[str]) -> None:
    """Ours and the library's agree in merges and in ids."""
    library = Subwords.learn(lines, size, progress=False)
    model = json.loads(library.to_json())["model"]
    merges = learn_merges(Counter(w for line in lines for w in split_text(line)), size)
    assert model["merges"] == [[shown(a), shown(b)] for a, b in merges]
    ids = {name: i for i, name in enumerate(LETTERS.values(), len(SPECIAL))}
    for a, b in merges:
        ids.setdefault(shown(a + b), len(ids) + len(SPECIAL))
    assert {k: v for k, v in model["vocab"].items() if v > END} == ids
    ours = [
        [ids[shown(t)] for w in split_text(line) for t in apply_merges(w, merges)]
        for line in probe
    ]
    assert ours == library.encode_all(probe)


@pytest.mark.parametrize("seed", range(40))
def test_ours_is_the_librarys_on_generated_text(seed: int) -> None:
    """Few letters make many ties and many pieces that two merges can give."""
    chance = random.Random(seed)
    letters = chance.choice(["ab", "abc", "aé日", "a1.", "abcdef"])
    lines = [
        " ".join(
            "".join(chance.choices(letters, k=chance.randint(1, 12)))
            for _ in range(chance.randint(1, 12))
        )
        for _ in range(chance.randint(1, 12))
    ]
    assert_same(lines, chance.choice([260, 270, 300, 400]), [*lines, "abcabc aé日 1a."])


@pytest.mark.parametrize("language", ["en", "de"])
def test_ours_is_the_librarys_on_real_text(language: str) -> None:
    """All of Multi30k's training text, and ids of its validation text."""
    folder = Path(os.environ.get("ANNOTATED_DATA", ""), "multi30k")
    if not (folder / f"train.{language}.gz").is_file():
        pytest.skip("ANNOTATED_DATA names no folder with multi30k")
    train, val = (
        gzip.decompress((folder / f"{split}.{language}.gz").read_bytes())
        .decode()
        .splitlines()
        for split in ("train", "val")
    )
    assert_same(train, 4_000, val[:200])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    """Nothing is unknown, nothing cleaned up, nothing special."""
    ids = SUBWORDS.encode(text)
    assert SUBWORDS.decode([START, *ids, END, PAD]) == text
    assert not {PAD, START, END} & set(ids)
    assert "".join(split_text(text)) == text
    assert SUBWORDS.encode_all([text, text]) == [ids, ids]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_small_letters(text: str) -> None:
    """The text comes back in small letters, each letter by itself, and again so."""
    small = "".join(letter.lower() for letter in text)
    assert SMALL.decode(SMALL.encode(text)) == small
    assert SMALL.encode_all([text]) == [SMALL.encode(text)] == [SMALL.encode(small)]


def test_small_letters_are_learned_and_saved(tmp_path: Path) -> None:
    """As from a text that was lowered before; the file remembers it."""
    lowered = Subwords.learn([line.lower() for line in LINES], 400, progress=False)
    models = [json.loads(one.to_json())["model"] for one in (SMALL, lowered)]
    assert models[0] == models[1] != json.loads(SUBWORDS.to_json())["model"]
    SMALL.save(tmp_path / "small.json")
    loaded = load_tokenizer(tmp_path / "small.json")
    assert loaded.encode("The NEWEST Tür") == lowered.encode("the newest tür")
    assert SUBWORDS.decode(SUBWORDS.encode("The NEWEST Tür")) == "The NEWEST Tür"


@pytest.mark.parametrize("text", ["<s>", "⟨s⟩", "</s> <pad>", "⟨pad⟩x⟨/s⟩", "Ġ"])
def test_special_symbols_in_a_text_are_text(text: str) -> None:
    """Even when the training text is full of them, and after loading."""
    learned = Subwords.learn([text] * 50, 300, progress=False)
    ids = learned.encode(text)
    assert min(ids) > END
    assert learned.decode(ids) == text


def test_pieces_show_each_id() -> None:
    """Special ids by name, words with their space."""
    assert SUBWORDS.pieces([START, *SUBWORDS.encode("a low"), END]) == [
        "<s>",
        "a",
        " low",
        "</s>",
    ]


@pytest.mark.parametrize("i", [-1, 10_000])
def test_an_id_of_no_entry_is_refused(i: int) -> None:
    """By both kinds."""
    for tokenizer in (SUBWORDS, Words.learn(LINES)):
        for method in (tokenizer.decode, tokenizer.pieces):
            with pytest.raises(IndexError, match=f"id {i}"):
                method([i])


def test_sizes() -> None:
    """The size asked for, fewer from a small text, an error below the bytes."""
    assert len(Subwords.learn(LINES, 300, progress=False)) == 300
    assert len(Subwords.learn(["ab ab"], 9_000, progress=False)) == 260
    assert len(Subwords.learn([], 9_000, progress=False)) == 259
    with pytest.raises(DataError, match="259"):
        Subwords.learn(LINES, 258, progress=False)


def test_the_order_of_the_lines_changes_nothing() -> None:
    """The vocabulary is a function of the counts."""
    assert Subwords.learn(LINES[::-1], 400, False).to_json() == SUBWORDS.to_json()


def test_words() -> None:
    """Ids by falling count, then alphabet; unknown words are named."""
    words = Words.learn(["the cat sees the dog .", "<s> ."])
    assert words.words == [".", "the", "<s>", "cat", "dog", "sees"]
    assert words.encode("<s> cat") == [5, 6]
    assert words.decode([START, 4, 6, END, PAD]) == "the cat"
    assert words.pieces([START, 4]) == ["<s>", "the"]
    assert len(words) == 9
    with pytest.raises(DataError, match=r"'fish' .* 6 known"):
        words.encode("the fish")


def test_saved_and_loaded(tmp_path: Path) -> None:
    """Both kinds, and each only as what it is."""
    words = Words.learn(LINES)
    SUBWORDS.save(tmp_path / "s.json")
    words.save(str(tmp_path / "w.json"))
    assert Subwords.load(tmp_path / "s.json").to_json() == SUBWORDS.to_json()
    assert Words.load(tmp_path / "w.json").words == words.words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.json", "w.json"]
    with pytest.raises(DataError, match=r"s\.json: holds Subwords"):
        Words.load(tmp_path / "s.json")
    with pytest.raises(DataError, match=r"w\.json: holds Words"):
        Subwords.load(tmp_path / "w.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"1", b"{}", b'{"words": 3}', b'{"words": ["a b"]}',
     b'{"words": ["a", "a"]}', b'{"words": [1]}', b"\xff\xfe", b"\x89PNG\0",
     SUBWORDS.to_json().encode()[:500],
     SUBWORDS.to_json().replace("⟨s⟩", "[CLS]").encode()],
)  # fmt: skip
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, content: bytes) -> None:
    """Damaged, foreign or empty: one line with the file's name."""
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"vocabulary\.json: ") as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """And a folder is no file."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="cannot read it"):
            load_tokenizer(path)


def test_dropout_draws_cuts_as_often_as_the_library() -> None:
    """The library's own BPE-dropout, which draws by a chance of its own."""
    library = tokenizers.Tokenizer.from_str(SUBWORDS.to_json())
    library.model.dropout = share = 0.3
    draws = 4_000
    for word in (" lowest", " widest"):
        lines = [word] * draws
        ours = BPEDropout(SUBWORDS, lines * 32, share, progress=False)
        assert len(ours.cuts) == 32  # one word, whatever the number of lines
        theirs = Counter(tuple(library.encode(line).ids) for line in lines)
        found = Counter[tuple[int, ...]]()
        for seed in range(draws // 32):
            again = BPEDropout(SUBWORDS, [word], share, seed, progress=False)
            found.update(map(tuple, again.cuts))
        assert len(found) > 4
        for cut in found | theirs:
            chance = (found[cut] + theirs[cut]) / (2 * draws)
            off = abs(found[cut] - theirs[cut]) / draws
            assert off < 6 * math.sqrt(2 * chance * (1 - chance) / draws) + 1e-3, cut


@given(st.text(max_size=60), st.sampled_from([SUBWORDS, SMALL]), st.integers(0, 9))
def test_any_cut_is_the_text(text: str, tokenizer: Subwords, seed: int) -> None:
    usual = tokenizer.encode(text)
    never, often, always = (
        BPEDropout(tokenizer, [text], share, seed, progress=False)
        for share in (0.0, 0.4, 1.0)
    )
    chance = np.random.default_rng(seed)
    assert never.draw(chance) == [usual]
    for cuts in (often, always):
        (drawn,) = cuts.draw(chance)
        assert tokenizer.decode(drawn) == tokenizer.decode(usual)
        assert len(drawn) <= cuts.longest[0]


def test_what_dropout_refuses() -> None:
    with pytest.raises(DataError, match="from 0 to 1"):
        BPEDropout(SUBWORDS, LINES, 1.5)
    with pytest.raises(DataError, match="whole words"):
        BPEDropout(Words.learn(LINES), LINES, 0.1)
