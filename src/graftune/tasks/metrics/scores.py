"""What scoring gives: the metrics, how each was computed, and sums by which the primary one can be resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


def _mean(sums: Sequence[float]) -> float:
    """Σ scores / n."""
    return sums[0] / sums[1]


def _f1(sums: Sequence[float]) -> float:
    """2 · true positives / (predicted + true); 0 where there is neither."""
    correct, predicted, true = sums
    return 2 * correct / (predicted + true) if predicted + true else 0.0


def _bleu(sums: Sequence[float]) -> float:
    """Corpus BLEU of summed lengths, n-gram matches and n-gram counts (Papineni et al. 2002)."""
    from sacrebleu.metrics import BLEU

    system, reference, *counts = (round(value) for value in sums)
    half = len(counts) // 2
    return float(BLEU.compute_bleu(counts[:half], counts[half:], system, reference, smooth_method="exp").score)


def _pearson(sums: Sequence[float]) -> float:
    """Pearson's correlation of n pairs by n, Σx, Σy, Σx², Σy², Σxy; 0 where either side is constant."""
    n, x, y, xx, yy, xy = sums
    spread = (n * xx - x * x) * (n * yy - y * y)
    return (n * xy - x * y) / math.sqrt(spread) if spread > 0 else 0.0


FORMULAS: dict[str, Callable[[Sequence[float]], float]] = {
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
        return self.scale * FORMULAS[self.formula]([math.fsum(column) for column in zip(*rows, strict=True)])


@dataclass(frozen=True)
class Scores:
    """Metrics by name, notes on how they were computed, and the sums of the primary one where it is made of sums."""

    values: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)
    sums: Sums | None = None
