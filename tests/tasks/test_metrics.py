"""Metrics equal the packages called directly with references laid out by hand."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from graftune.tasks import metrics
from graftune.tasks.metrics import classes, generation
from graftune.tasks.metrics.text import streams

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
    found = generation(TEXTS, references)
    scores, notes = found.values, found.notes
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
    assert generation(TEXTS, references).values["rougeL"] == pytest.approx(100 * (1 + middle + 1) / 3)


@given(st.lists(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3), min_size=3, max_size=3))
def test_perfect_predictions_score_100_beside_any_other_references(others):
    scores = generation(TEXTS, [[*texts, text] for texts, text in zip(others, TEXTS, strict=True)]).values
    assert scores["bleu"] == pytest.approx(100)
    assert scores["rougeL"] == pytest.approx(100)


def test_chinese_needs_its_tokenizer():
    texts, references = ["今天天气很好啊"], [["今天天气很好"]]
    found = generation(texts, references)
    plain, notes = found.values, found.notes
    chinese = generation(texts, references, tokenize="zh").values
    assert plain["bleu"] < chinese["bleu"]
    assert "always 0" in notes["rougeL"]
    assert plain["rougeL"] == 0


def test_classification_by_hand():
    assert classes([0, 0, 1, 1], [0, 1, 1, 1]).values == pytest.approx({"accuracy": 0.75, "f1": (2 / 3 + 4 / 5) / 2})
    # a label that never occurs does not count as a failure
    assert classes([0, 2], [0, 2]).values == {"accuracy": 1.0, "f1": 1.0}


TOKENS = ["the", "a", "cat", "dog", "sat", "mat", ".", "on", "runs", "rains"]
WORDS = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=9).map(" ".join)
TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y"]), min_size=4, max_size=4)
FLAGS = st.lists(st.booleans(), min_size=3, max_size=3)
NUMBER = st.floats(-5, 5, width=32)
CASES = {
    "bleu": (lambda sides: generation(sides[0], [[text] for text in sides[1]]), WORDS, WORDS),
    "rougeL": (lambda sides: metrics.summaries(sides[0], [[text] for text in sides[1]]), WORDS, WORDS),
    "accuracy": (lambda sides: classes(*sides), st.integers(0, 2), st.integers(0, 2)),
    "f1 of tags": (lambda sides: metrics.tags(*sides), TAGS, TAGS),
    "f1 of labels": (lambda sides: metrics.multi_label(*sides), FLAGS, FLAGS),
    "f1 of spans": (lambda sides: metrics.spans(sides[0], [[text] for text in sides[1]]), WORDS, WORDS),
    "pearson": (lambda sides: metrics.regression([[x] for x in sides[0]], [[y] for y in sides[1]]), NUMBER, NUMBER),
}


@pytest.mark.parametrize("metric", CASES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_sums_of_any_sample_give_its_metric(metric, data):
    """A resampled metric equals the package's own on the rows that were drawn."""
    score, left, right = CASES[metric]
    pairs = data.draw(st.lists(st.tuples(left, right), min_size=2, max_size=6))
    sample = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=2, max_size=8))
    whole = score(list(zip(*pairs, strict=True)))
    if whole.sums is None:  # no entity in any of the tags
        assert metric == "f1 of tags"
        return
    drawn = score(list(zip(*(pairs[i] for i in sample), strict=True)))
    name = metric.split()[0]
    if metric == "f1 of tags" and drawn.sums is None:
        assert whole.sums.metric(sample) == 0
    else:
        expected = drawn.values[name]
        assert whole.sums.metric(sample) == pytest.approx(expected, rel=1e-4, abs=1e-4 if metric == "pearson" else 1e-6)


def test_questions_without_an_answer_are_scored_apart():
    found = metrics.spans(["", "x", "the cat"], [[], [], ["a cat"]]).values
    assert found["em"] == pytest.approx(100 * 2 / 3)
    assert found["unanswerable"] == pytest.approx(50)
    assert found["answerable_em"] == found["answerable_f1"] == pytest.approx(100)
