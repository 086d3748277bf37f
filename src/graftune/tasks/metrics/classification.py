"""Scores of labels: accuracy and F1."""

from __future__ import annotations

from collections.abc import Sequence

from graftune.tasks.metrics.scores import Scores, Sums


def classes(predictions: Sequence[int], labels: Sequence[int]) -> Scores:
    """Accuracy and macro F1 (over the labels that occur in either), from 0 to 1."""
    from sklearn.metrics import accuracy_score, f1_score

    values = {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }
    rows = [(float(guess == label), 1.0) for guess, label in zip(predictions, labels, strict=True)]
    return Scores(values, {}, Sums("mean", rows))


def multi_label(predictions: Sequence[Sequence[bool]], truth: Sequence[Sequence[bool]]) -> Scores:
    """Micro and macro F1 over labels, and the share of rows whose labels are all right, from 0 to 1.

    Each row has a truth value per label.
    """
    from sklearn.metrics import accuracy_score, f1_score

    sides = [list(map(list, truth)), list(map(list, predictions))]
    values = {
        "f1": float(f1_score(*sides, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(*sides, average="macro", zero_division=0)),
        "exact": float(accuracy_score(*sides)),
    }
    rows = [
        (float(sum(a and b for a, b in zip(guess, own, strict=True))), float(sum(guess)), float(sum(own)))
        for guess, own in zip(predictions, truth, strict=True)
    ]
    return Scores(values, {"f1": "micro average over labels; macro_f1 is the mean over labels"}, Sums("f1", rows))
