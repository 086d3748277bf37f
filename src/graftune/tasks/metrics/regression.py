"""Scores of numbers: correlations and errors."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from graftune.tasks.metrics.scores import Scores, Sums

Numbers = Sequence[Sequence[float]]


def regression(predictions: Numbers, truth: Numbers) -> Scores:
    """Pearson's and Spearman's correlation (0 where either side is constant), and mean errors.

    Each row has one number or several; over several, each figure is the mean over the columns.
    """
    columns = list(zip(zip(*predictions, strict=True), zip(*truth, strict=True), strict=True))
    each = [_one(list(guesses), list(wanted)) for guesses, wanted in columns]
    values = {name: statistics.fmean(one[name] for one in each) for name in each[0]}
    if len(columns) > 1:
        return Scores(values, {"pearson": f"mean over {len(columns)} numbers"})
    pairs = [(guess[0], wanted[0]) for guess, wanted in zip(predictions, truth, strict=True)]
    return Scores(values, {}, Sums("pearson", [(1.0, x, y, x * x, y * y, x * y) for x, y in pairs]))


def _one(predictions: Sequence[float], truth: Sequence[float]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    constant = len(set(predictions)) < 2 or len(set(truth)) < 2
    return {
        "pearson": 0.0 if constant else float(pearsonr(predictions, truth).statistic),
        "spearman": 0.0 if constant else float(spearmanr(predictions, truth).statistic),
        "mae": float(mean_absolute_error(truth, predictions)),
        "rmse": float(root_mean_squared_error(truth, predictions)),
    }
