"""Metrics equal the packages called directly with references laid out by hand."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from graftune.tasks.metrics import classification, generation, streams

TEXTS = ["the cat sat on the mat", "a dog runs in the park today", "it rains"]


def test_variable_numbers_of_references():
    references = [
        ["the cat is on the mat", "there is a cat on the mat", "the cat sat"],
        ["a dog runs in a park"],
        ["it rains a lot", "rain falls"],
    ]
    by_hand = [
        ["the cat is on the mat", "a dog runs in a park", "it rains a lot"],
        ["there is a cat on the mat", None, "rain falls"],
        ["the cat sat", None, None],
    ]
    scores, notes = generation(TEXTS, references)
    assert streams(references) == by_hand
    assert scores["bleu"] == sacrebleu.corpus_bleu(TEXTS, by_hand).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(TEXTS, by_hand).score
    assert scores["bleu"] != sacrebleu.corpus_bleu(TEXTS, by_hand[:1]).score
    assert "nrefs:var" in notes["bleu"]
    assert "version:" in notes["chrf"]


def test_rouge_takes_the_best_reference_of_each_row():
    references = [["nothing alike", TEXTS[0]], ["a dog runs"], ["it rains", "x"]]
    scorer = RougeScorer(["rougeL"])
    middle = scorer.score("a dog runs", TEXTS[1])["rougeL"].fmeasure
    assert generation(TEXTS, references)[0]["rougeL"] == pytest.approx(100 * (1 + middle + 1) / 3)


@given(st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3), min_size=3, max_size=3))
def test_perfect_predictions_score_100_beside_any_other_references(others):
    scores, _ = generation(TEXTS, [[*texts, text] for texts, text in zip(others, TEXTS, strict=True)])
    assert scores["bleu"] == pytest.approx(100)
    assert scores["rougeL"] == pytest.approx(100)


def test_chinese_needs_its_tokenizer():
    texts, references = ["今天天气很好啊"], [["今天天气很好"]]
    plain, notes = generation(texts, references)
    chinese, _ = generation(texts, references, tokenize="zh")
    assert plain["bleu"] < chinese["bleu"]
    assert "always 0" in notes["rougeL"]
    assert plain["rougeL"] == 0


def test_classification_by_hand():
    assert classification([0, 0, 1, 1], [0, 1, 1, 1]) == pytest.approx({"accuracy": 0.75, "f1": (2 / 3 + 4 / 5) / 2})
    # a label that never occurs does not count as a failure
    assert classification([0, 2], [0, 2]) == {"accuracy": 1.0, "f1": 1.0}
