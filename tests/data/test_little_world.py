"""The little world's text, and the truth that is known about it."""

import hashlib
from collections import Counter, defaultdict

from annotated.data import (
    CATEGORIES,
    corpus_path,
    little_world,
    little_world_analogies,
    read_tokens,
    rows_of,
    split_words,
)


def test_same_text_everywhere() -> None:
    text = "\n".join(little_world())
    assert hashlib.sha256(text.encode()).hexdigest().startswith("e4eb9b761a6dbe70")
    assert little_world(1000, seed=1) != little_world(1000, seed=2)
    assert little_world(10, seed=1) == little_world(1000, seed=1)[:10]


def test_each_word_has_one_place() -> None:
    rows = [row for kind in CATEGORIES.values() for row, _ in rows_of(kind.table)]
    assert all(len(row) == 5 for row in rows)
    words = Counter(split_words(" ".join(sum(rows, []))))
    assert words.total() == 5 * len(rows)
    assert not [word for word, n in words.items() if n > 1]
    frames = " ".join(" ".join(kind[1:]) for kind in CATEGORIES.values())
    assert not set(split_words(frames.replace("{}", " "))) & set(words)


def test_held_out_pairs_never_meet_and_the_others_do() -> None:
    together = defaultdict(set)
    for sentence in read_tokens(little_world()):
        for word in sentence:
            together[word].update(sentence)
    for held_out in (True, False):
        for _, a, b, c, d in little_world_analogies(held_out):
            assert b in together[a]
            assert (d in together[c]) != held_out


def test_words_of_a_pair_keep_the_same_company() -> None:
    """Both words of a row stand beside all of its topics, about equally often."""
    beside = Counter()
    for words in read_tokens(little_world()):
        beside.update((a, b) for a in words for b in words)
    for kind in CATEGORIES.values():
        for row, _ in rows_of(kind.table):
            first, second, *topics = (word.lower() for word in row)
            for topic in topics:
                assert 0.3 < beside[first, topic] / beside[second, topic] < 3


def test_questions_of_every_kind() -> None:
    questions = little_world_analogies()
    assert set(Counter(q[0] for q in questions)) == set(CATEGORIES)
    assert len(set(questions)) == len(questions) == 333
    assert ("capital-country", "paris", "france", "berlin", "germany") in questions
    assert ("man-woman", "king", "queen", "duke", "duchess") in questions
    stated = little_world_analogies(held_out=False)
    assert not {q[3:] for q in questions} & {q[3:] for q in stated}


def test_it_is_a_corpus_too() -> None:
    path = corpus_path("little-world")
    assert path.read_text().splitlines() == little_world()
    assert corpus_path("little-world") == path
