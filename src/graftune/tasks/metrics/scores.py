"""What scoring gives: the metrics, how each was computed, and sums by which the primary one can be resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Formulas of sums, (…, figures), each of which gives the metric of every sample, (…).


def _mean(sums: np.ndarray) -> np.ndarray:
    """Σ scores / n."""
    return _ratio(sums[..., 0], sums[..., 1])


def _f1(sums: np.ndarray) -> np.ndarray:
    """2 · true positives / (predicted + true); 0 where there is neither."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU of summed lengths, n-gram matches and n-gram counts (Papineni et al. 2002)."""
    from sacrebleu.metrics import BLEU

    def one(figures: np.ndarray) -> float:
        system, reference, *counts = (round(value) for value in figures)
        half = len(counts) // 2
        return float(BLEU.compute_bleu(counts[:half], counts[half:], system, reference, smooth_method="exp").score)

    return np.apply_along_axis(one, -1, sums)


def _pearson(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation of n pairs by n, Σx, Σy, Σx², Σy², Σxy; 0 where either side is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = (n * xx - x * x) * (n * yy - y * y)
    return _ratio(n * xy - x * y, np.sqrt(np.maximum(spread, 0)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The ratio; 0 where nothing stands below."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below != 0)


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "f1": _f1,
    "bleu": _bleu,
    "pearson": _pearson,
}


@dataclass(frozen=True)
class Sums:
    """Figures per prediction; ``formula`` makes the primary metric, times ``scale``, of their sum over any sample."""

    formula: str
    rows: Sequence[tuple[float, ...]]
    scale: float = 1.0

    def metric(self, sample: Sequence[int] | None = None) -> float:
        """The primary metric of some of the predictions, by their numbers; of all by default."""
        rows = self.rows if sample is None else [self.rows[i] for i in sample]
        sums = np.array([math.fsum(column) for column in zip(*rows, strict=True)])
        return self.scale * float(FORMULAS[self.formula](sums))


@dataclass(frozen=True)
class Scores:
    """Metrics by name, notes on how they were computed, and the sums of the primary one where it is made of sums."""

    values: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)
    sums: Sums | None = None
