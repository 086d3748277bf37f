"""Metrics of the tasks against counts by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftune.datasets import Row
from graftune.tasks import Regress, Summarize, Translate, metrics


def test_answers_are_normalised_as_squad_does():
    scores = metrics.spans(["The Boat.", "at noon", ""], [("boat",), ("noon", "at nine"), ("x",)]).values
    assert scores["em"] == pytest.approx(100 / 3)
    # boat: 1; "at noon" against "noon": precision 1/2, recall 1 -> 2/3; nothing: 0
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)


def test_boxes():
    truth = [(torch.tensor([0, 1]), torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]))]
    right = [(torch.tensor([0.9, 0.8]), truth[0][0], truth[0][1])]
    found = metrics.detection(right, truth, ["a", "b"])
    scores, notes = found.values, found.notes
    assert (scores["map"], scores["map50"], scores["map a"]) == pytest.approx((1.0, 1.0, 1.0))
    assert "pycocotools" in notes["map"]
    # half of the height: an overlap of 0.5, a hit at 0.5 only, which is one of ten thresholds
    low = [(torch.tensor([0.9]), torch.tensor([0]), torch.tensor([[0.0, 0, 10, 5]]))]
    one = [(torch.tensor([0]), torch.tensor([[0.0, 0, 10, 10]]))]
    scores = metrics.detection(low, one, ["a", "b"]).values
    assert scores["map50"] == pytest.approx(1.0)
    assert scores["map"] == pytest.approx(0.1)


@given(st.lists(st.integers(-10, 10), min_size=3, max_size=8, unique=True), st.floats(0.1, 3))
def test_correlations_ignore_scale_and_errors_do_not(values, scale):
    scores = metrics.regression([[scale * v + 1] for v in values], [[v] for v in values]).values
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] == pytest.approx(1.0, abs=1e-3)
    errors = [abs(scale * v + 1 - v) for v in values]
    assert scores["mae"] == pytest.approx(sum(errors) / len(values), rel=1e-6, abs=1e-9)
    assert metrics.regression([[1.0]] * len(values), [[v] for v in values]).values["pearson"] == 0.0


def test_targets_are_standardised():
    task = Regress().fit([Row("a", (value, 7.0), 1) for value in (1.0, 3.0)])
    assert (task.mean, task.spread) == ((2.0, 7.0), (1.0, 1.0))
    assert Regress().fit([Row("a", (5.0,), 1)]).mean == (5.0,)


@pytest.mark.parametrize(
    ("text", "tokenizer"), [("我有一個意見。", "zh"), ("idea", "13a"), ("ひらがな", "char"), ("!", "13a")]
)
def test_the_script_of_the_targets_chooses_how_words_are_counted(text, tokenizer):
    assert Translate().fit([Row("x", text, 1)]).tokenize == tokenizer
    assert Translate(tokenize="intl").fit([Row("x", text, 1)]).tokenize == "intl"


def test_translations_carry_sacrebleus_signature():
    task = Translate().fit([Row("x", "我有一個意見", 1)])
    scores = task.scores(["我有一個意見"], [["我有一個意見"]])
    assert scores.values["bleu"] == pytest.approx(100.0)
    assert "tok:zh" in scores.notes["bleu"]


def test_summaries_are_scored_by_rouge():
    scores = Summarize().scores(["the boat left"], [["the boat left at noon"]]).values
    # 3 of 3 words found, 3 of 5: F1 = 2 · 1 · 0.6 / 1.6
    assert scores["rouge1"] == pytest.approx(75.0)
    assert scores["rouge2"] == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)
    assert set(scores) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
