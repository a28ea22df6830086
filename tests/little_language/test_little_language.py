"""The little language: one right translation, true links, splits that keep apart."""

import hashlib
import random
from itertools import pairwise

import pytest

from annotated import little_language as little
from annotated.little_language import (
    ADJECTIVES,
    DETERMINERS,
    EXAMPLE,
    HELD_OUT,
    NOUNS,
    OBJECTS,
    VERBS,
    Clause,
    Pair,
    Phrase,
    Place,
    Sentence,
    little_pair,
    little_pairs,
    little_splits,
    random_sentence,
)

NOUN = {noun.english: noun for noun in NOUNS}
VERB = {verb.english: verb for verb in VERBS}
ADJECTIVE = {adjective.english: adjective for adjective in ADJECTIVES}
THE, MANY_THE, A, SOME, THIS, THESE, MY = DETERMINERS[:7]
HIM, HER, THEM, ME, US = OBJECTS
PREPOSITION = {place.english: place for place in little.PREPOSITIONS}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Pair]]:
    """Return the French splits, smaller than the book's."""
    return little_splits(train=8000, test=300)


def the(noun: str, *adjectives: str) -> Phrase:
    """Return the noun phrase with *the*."""
    return Phrase(THE, NOUN[noun], tuple(ADJECTIVE[word] for word in adjectives))


def words(pair: Pair) -> tuple[list[str], list[str]]:
    """Return the words of both sides."""
    return pair.source.split(), pair.target.split()


def test_the_cat_is_on_the_mat(splits: dict[str, list[Pair]]) -> None:
    pair = little_pair(EXAMPLE)
    assert pair.source == "The cat is on the mat ."
    assert pair.target == "Le chat est sur le tapis ."
    assert pair.alignment == tuple((i, i) for i in range(7))
    assert little_pair(EXAMPLE, "zh").target == "猫 在 垫子 上 。"
    assert splits["random"][0] == pair


CASES = [
    (
        Clause(the("man", "old"), VERB["admire"], Phrase(A, NOUN["bird"])),
        "The old man admires a bird .",
        "Le vieil homme admire un oiseau .",
        "老 的 男人 欣赏 一 只 鸟 。",
    ),
    (
        Clause(the("man"), VERB["admire"], Phrase(A, NOUN["bird"]), negative=True),
        "The man does not admire a bird .",
        "L' homme n' admire pas d' oiseau .",
        "男人 不 欣赏 一 只 鸟 。",
    ),
    (
        Clause(the("girl"), VERB["help"], HER, tense="future", negative=True),
        "The girl will not help her .",
        "La fille ne l' aidera pas .",
        "女孩 不 会 帮助 她 。",
    ),
    (
        Clause(
            Phrase(SOME, NOUN["horse"], (ADJECTIVE["beautiful"], ADJECTIVE["white"])),
            VERB["look"],
            ME,
            tense="past",
        ),
        "Some beautiful white horses were looking for me .",
        "De beaux chevaux blancs me cherchaient .",
        "一些 美丽 的 白色 的 马 当时 在 找 我 。",
    ),
    (
        Clause(
            Phrase(MY, NOUN["school"]),
            None,
            place=Place(PREPOSITION["near"], the("garden")),
        ),
        "My school is near the garden .",
        "Mon école est près du jardin .",
        "我 的 学校 在 花园 旁边 。",
    ),
    (
        Clause(
            the("cat"),
            VERB["sleep"],
            place=Place(PREPOSITION["near"], Phrase(SOME, NOUN["bed"])),
        ),
        "The cat sleeps near some beds .",
        "Le chat dort près de lits .",
        "猫 在 一些 床 旁边 睡觉 。",
    ),
    (
        Clause(Phrase(THESE, NOUN["mouse"]), ADJECTIVE["black"], negative=True),
        "These mice are not black .",
        "Ces souris ne sont pas noires .",
        "这些 老鼠 不 是 黑色 的 。",
    ),
]


@pytest.mark.parametrize(("clause", "english", "french", "chinese"), CASES)
def test_what_the_grammar_asks_for(
    clause: Clause, english: str, french: str, chinese: str
) -> None:
    sentence = Sentence(clause)
    assert little_pair(sentence)[:2] == (english, french)
    assert little_pair(sentence, "zh")[:2] == (english, chinese)


def test_questions() -> None:
    clause = Clause(the("aunt"), VERB["wash"], THEM)
    source, target, links = little_pair(Sentence(clause, "yes"))
    assert source == "Does the aunt wash them ?"
    assert target == "Est-ce que la tante les lave ?"
    assert links == ((0, 0), (0, 1), (1, 2), (2, 3), (3, 5), (4, 4), (5, 6))
    assert little_pair(Sentence(clause, "yes"), "zh").target == "阿姨 洗 他们 吗 ？"
    he = Clause(little.HE, VERB["laugh"], tense="future")
    assert little_pair(Sentence(he, "when"))[:2] == (
        "When will he laugh ?",
        "Quand est-ce qu' il rira ?",
    )
    assert little_pair(Sentence(he, "why"), "zh").target == "他 为什么 会 笑 ？"


def test_clauses_part_subject_and_verb_at_any_depth() -> None:
    """Ten clauses inside each other; the last adjective agrees with the first noun."""
    phrase = the("boy")
    for _ in range(10):
        phrase = the("girl")._replace(relative=Clause(phrase, VERB["watch"]))
    subject = phrase._replace(determiner=MANY_THE)
    pair = little_pair(Sentence(Clause(subject, ADJECTIVE["happy"])))
    assert pair.source.startswith("The girls who the girl who the girl who")
    assert pair.source.endswith("watches watches are happy .")
    assert pair.target.endswith("regarde regarde sont heureuses .")


@pytest.mark.parametrize("depth", [1, 3])
def test_one_right_translation_where_words_are_few(
    monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """With few words each sentence comes often, from each tree that it may have."""
    names = {"man", "aunt", "mat", "roof", "hotel", "key"}
    monkeypatch.setattr(little, "NOUNS", [NOUN[name] for name in sorted(names)])
    few = [ADJECTIVE["old"], ADJECTIVE["strange"], ADJECTIVE["white"]]
    monkeypatch.setattr(little, "ADJECTIVES", [*few, ADJECTIVE["big"]])
    monkeypatch.setattr(little, "VERBS", [VERB["sleep"], VERB["watch"]])
    monkeypatch.setattr(little, "DETERMINERS", [THE, SOME])
    monkeypatch.setattr(little, "TENSES", ["present", "past"])
    monkeypatch.setattr(
        little, "PREPOSITIONS", [PREPOSITION["on"], PREPOSITION["near"]]
    )
    cached = (little.nouns_of, little.adjectives_of, little.verbs_of)
    for function in cached:
        function.cache_clear()
    chance, right, repeated = random.Random(depth), {}, 0
    for _ in range(15_000):
        sentence = random_sentence(chance, depth)
        both = little_pair(sentence), little_pair(sentence, "zh")
        first = right.setdefault(both[0].source, both)
        assert first == both
        repeated += first is not both
    for function in cached:
        function.cache_clear()
    assert repeated > 1000


def test_an_ambiguous_question_would_be_noticed() -> None:
    """What random_sentence keeps out: one English sentence, two French ones."""
    near_bed = Place(PREPOSITION["near"], the("bed"))
    mat = Place(PREPOSITION["on"], the("mat"))
    mat_near_bed = mat._replace(phrase=the("mat")._replace(place=near_bed))
    first = Clause(the("cat")._replace(place=mat), None, place=near_bed)
    second = Clause(the("cat"), None, place=mat_near_bed)
    a, b = (little_pair(Sentence(clause, "yes")) for clause in (first, second))
    assert a.source == b.source and a.target != b.target


@pytest.mark.parametrize("language", ["fr", "zh"])
def test_links(language: str) -> None:
    """Each target word has a link, each content word of the source too."""
    content = {noun.english for noun in NOUNS} | {noun.english_plural for noun in NOUNS}
    content |= set(ADJECTIVE) | set(PREPOSITION)
    for pair in little_pairs(3000, seed=3, language=language, max_depth=3):
        source, target = words(pair)
        linked = {i for i, _ in pair.alignment}
        assert {j for _, j in pair.alignment} == set(range(len(target)))
        assert all(0 <= i < len(source) for i in linked)
        assert pair.alignment == tuple(sorted(set(pair.alignment)))
        assert linked >= {i for i, word in enumerate(source) if word in content}


def test_links_say_which_noun() -> None:
    forms = {n.english: n.french for n in NOUNS}
    forms |= {n.english_plural: n.french_plural for n in NOUNS}
    for pair in little_pairs(2000, seed=4):
        source, target = words(pair)
        for i, j in pair.alignment:
            if source[i] in forms:
                assert target[j] == forms[source[i]]


def test_gender_and_elision() -> None:
    gender = {noun.french: noun.gender for noun in NOUNS}
    for pair in little_pairs(5000, seed=5):
        target = words(pair)[1]
        lower = [word.lower() for word in target]
        for first, second in pairwise(lower):
            if second in gender:
                assert first not in ("le", "un", "ce", "cet", "du") or (
                    gender[second] == "m"
                )
                assert first not in ("la", "une", "cette", "ma") or (
                    gender[second] == "f"
                )
            if little.vowel(second):
                assert first not in little.BEFORE_VOWEL
            else:
                assert first not in {"l'", "n'", "qu'", "d'", "m'", "cet"}
        assert lower.count("pas") == lower.count("ne") + lower.count("n'")


def test_the_same_everywhere() -> None:
    """No other machine, Python or order of a set may change a word."""
    for language, digest in (("fr", "1a5808497145ab5e"), ("zh", "bb959ed03fe5190f")):
        pairs = little_pairs(1000, language=language)
        text = "\n".join(f"{p.source}\t{p.target}\t{p.alignment}" for p in pairs)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


def test_less_is_a_beginning_and_a_seed_changes_all() -> None:
    pairs = little_pairs(500, seed=1)
    assert len({pair.source for pair in pairs}) == 500
    assert little_pairs(50, seed=1) == pairs[:50]
    assert little_pairs(500, seed=2) != pairs
    assert little_pairs(0) == []


def test_splits_are_disjoint(splits: dict[str, list[Pair]]) -> None:
    assert list(splits) == ["train", "validation", "random", "longer", "unseen"]
    assert [len(split) for split in splits.values()] == [8000, 300, 300, 300, 300]
    sources = [pair.source for split in splits.values() for pair in split]
    assert len(set(sources)) == len(sources)


def test_longer_is_longer(splits: dict[str, list[Pair]]) -> None:
    trained = max(pair.source.count(" ") for pair in splits["train"])
    assert all(trained < pair.source.count(" ") < 32 for pair in splits["longer"])
    assert all(pair.source.count(" ") <= trained for pair in splits["random"])


def test_unseen_words_never_met(splits: dict[str, list[Pair]]) -> None:
    held_out = set(HELD_OUT)
    trained = [set(pair.source.split()) for pair in splits["train"]]
    for adjective, noun in HELD_OUT:
        assert not any(adjective in text and noun in text for text in trained)
    for pair in splits["unseen"]:
        assert held_out & set(pairwise(pair.source.split()))


def test_each_word_is_trained(splits: dict[str, list[Pair]]) -> None:
    for side in (0, 1):
        known = {word for pair in splits["train"] for word in words(pair)[side]}
        for split in splits.values():
            assert {word for pair in split for word in words(pair)[side]} <= known


def test_splits_do_not_depend_on_size_or_language(
    splits: dict[str, list[Pair]],
) -> None:
    small = little_splits("zh", train=100, test=300)
    for name, split in small.items():
        expected = [pair.source for pair in splits[name][: len(split)]]
        assert [pair.source for pair in split] == expected


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match=r"language 'de': expected \"fr\" or \"zh\""):
        little_pairs(1, language="de")
