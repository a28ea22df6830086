"""BLEU and the alignment error rate, against their definitions."""

import math
import os
import random
from collections import Counter

import pytest

from annotated.decoding import alignment_error_rate, corpus_bleu, moses_words
from annotated.parallel import parallel_lines


def by_definition(outputs: list[str], references: list[str]) -> float:
    """BLEU as Papineni et al. define it, on text cut at spaces."""
    logarithm = 0.0
    for n in range(1, 5):
        common = everything = 0
        for output, reference in zip(outputs, references, strict=True):
            ours, theirs = (
                Counter(zip(*(text.split()[i:] for i in range(n)), strict=False))
                for text in (output, reference)
            )
            common += (ours & theirs).total()
            everything += ours.total()
        logarithm += math.log(common / everything) / 4
    c, r = (sum(len(t.split()) for t in texts) for texts in (outputs, references))
    return 100 * min(1, math.exp(1 - r / c)) * math.exp(logarithm)


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_its_definition(seed: int) -> None:
    """On random sentences with much in common, some shorter, some longer."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices("abcde", k=12)) for _ in range(20)]
    outputs = [r[: draw.choice([15, 19, 23])] + " a" * (seed % 3) for r in references]
    found = corpus_bleu(outputs, references, tokenize="none")
    assert found.score == pytest.approx(by_definition(outputs, references))
    assert "tok:none" in found.signature


def test_bleu_says_how_it_was_computed() -> None:
    """The signature names case and tokenisation, and both matter."""
    outputs = ["The cat sleeps on the mat, today.", "a dog runs in the park."]
    references = ["the cat sleeps on the mat , today.", "A dog runs in the park."]
    cased = corpus_bleu(outputs, references)
    lower = corpus_bleu(outputs, references, lowercase=True)
    assert cased.score < lower.score == pytest.approx(100)
    assert "case:mixed" in cased.signature and "tok:13a" in cased.signature
    assert "case:lc" in lower.signature
    chinese = corpus_bleu(["猫在垫子上睡觉。"], ["猫在垫子上睡觉。"], tokenize="zh")
    assert chinese.score == pytest.approx(100) and "tok:zh" in chinese.signature


def test_words_as_moses_cuts_them() -> None:
    """Small letters, punctuation made uniform, the rules of the language."""
    lines = ["L’homme « court »…", "It isn't 3.50, is it?"]
    assert moses_words(lines[:1], "fr", lowercase=True) == ['l\' homme " court " ...']
    assert moses_words(lines[1:], "en") == ["It isn 't 3.50 , is it ?"]
    outputs, references = ["L'homme court vers l'eau."], ["L'homme court vers l'arbre."]
    found = corpus_bleu(outputs, references, tokenize="moses-fr", lowercase=True)
    cut = [moses_words(side, "fr", lowercase=True) for side in (outputs, references)]
    assert found.score == corpus_bleu(*cut, tokenize="none").score
    assert "case:lc" in found.signature and "tok:moses-fr" in found.signature


@pytest.mark.parametrize(("language", "words"), [("de", 12_103), ("fr", 13_988)])
def test_multi30k_has_as_many_words_as_its_publisher_says(
    language: str, words: int
) -> None:
    """Counts of https://github.com/multi30k/dataset, of the text that papers score."""
    if "ANNOTATED_DATA" not in os.environ:
        pytest.skip("ANNOTATED_DATA names no folder with multi30k")
    _, lines = parallel_lines("multi30k", f"en-{language}", "test2016")
    cut = moses_words(lines, language, lowercase=True)
    assert sum(len(line.split()) for line in cut) == words


def test_bleu_refuses_what_cannot_be_compared() -> None:
    """Nothing, or unequal numbers."""
    with pytest.raises(ValueError, match="1 hypotheses and 2 references"):
        corpus_bleu(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 hypotheses"):
        corpus_bleu([], [])


def test_alignment_error_rate() -> None:
    """The formula, over all sentences together."""
    sure = [{(0, 0), (1, 2)}, {(0, 0)}]
    possible = [{(0, 0), (1, 2), (1, 1)}, {(0, 0)}]
    predicted = [[(0, 0), (1, 1)], [(2, 2)]]
    assert alignment_error_rate(predicted, sure) == pytest.approx(1 - 2 / 6)
    assert alignment_error_rate(predicted, sure, possible) == pytest.approx(1 - 3 / 6)
    assert alignment_error_rate(sure, sure) == 0
    assert alignment_error_rate([[], []], sure) == 1
    only = [p - s for p, s in zip(possible, sure, strict=True)]
    with_sure = alignment_error_rate(predicted, sure, only)
    assert with_sure == alignment_error_rate(predicted, sure, possible)


def test_alignment_error_rate_refuses_nothing() -> None:
    """No links, or unequal numbers of sentences."""
    with pytest.raises(ValueError, match="no links"):
        alignment_error_rate([[]], [[]])
    with pytest.raises(ValueError, match="1 sentences predicted, 2 sure"):
        alignment_error_rate([[(0, 0)]], [[(0, 0)], []])
