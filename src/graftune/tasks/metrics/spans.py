"""Scores of extracted answers, as SQuAD has them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from graftune.tasks.metrics.scores import Scores, Sums


def spans(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Exact match and F1 of words after SQuAD's normalisation, each from 0 to 100, by the best answer.

    A question without references has no answer: "" is right there, anything else wrong (SQuAD 2.0). Where there are
    such questions, `answerable_f1`, `answerable_em` and `unanswerable` give both kinds apart.
    """
    pairs = [_one(text, texts) for text, texts in zip(predictions, references, strict=True)]
    values = {"f1": 100 * statistics.fmean(f1 for f1, _ in pairs), "em": 100 * statistics.fmean(em for _, em in pairs)}
    answerable = [pair for pair, texts in zip(pairs, references, strict=True) if texts]
    without = [em for (_, em), texts in zip(pairs, references, strict=True) if not texts]
    if without:
        values["unanswerable"] = 100 * statistics.fmean(without)
    if without and answerable:
        values["answerable_f1"] = 100 * statistics.fmean(f1 for f1, _ in answerable)
        values["answerable_em"] = 100 * statistics.fmean(em for _, em in answerable)
    note = f"torchmetrics {version('torchmetrics')}, SQuAD v{'2.0' if without else '1.1'}, 0 to 100"
    return Scores(values, {"f1": note}, Sums("mean", [(f1, 1.0) for f1, _ in pairs], 100.0))


def _one(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """F1 and exact match of one answer, from 0 to 1."""
    from torchmetrics.functional.text import squad

    if not references:
        right = float(not prediction)
        return right, right
    guess: Any = [{"prediction_text": prediction, "id": "0"}]
    truth: Any = [{"answers": {"answer_start": [0] * len(references), "text": list(references)}, "id": "0"}]
    found = squad(guess, truth)
    return float(found["f1"]) / 100, float(found["exact_match"]) / 100
