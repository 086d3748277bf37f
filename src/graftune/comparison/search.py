"""The search for a candidate's rate: a grid around a centre, its edges moved out where the best lies on one.

Everything is a function of what was tried so far, so that a search can be stopped, resumed and shared out anyhow. A
trial that failed or diverged has the score None, which is worse than any other, and stays in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from graftune.comparison.points import finite

#: Rates between which a method is far from its best lie 1.8 to 3 apart (fair-comparison of LoRA by rank and batch).
SPACING: Final = math.sqrt(10)
POINTS: Final = 5
MORE: Final = 2  # rates beyond the grid's edges, at most

#: Scores by rate, larger is better.
Tried = Mapping[float, float | None]


def grid(centre: float, spacing: float = SPACING, points: int = POINTS) -> list[float]:
    """Rates around the centre, each `spacing` times the one before, to two digits: 1e-4, 3.2e-4, 1e-3, …"""
    return [rounded(centre * spacing ** (place - points // 2)) for place in range(points)]


def rounded(rate: float) -> float:
    """To two significant digits, as one would type it."""
    return float(f"{rate:.1e}")


def to_try(centre: float, tried: Tried, spacing: float = SPACING, points: int = POINTS) -> list[float]:
    """The rates that are still to be tried: the grid, then one beyond the edge that the best rate lies on.

    At most `MORE` beyond the grid, on both sides together; nothing more where all has failed.
    """
    first = grid(centre, spacing, points)
    if left := [rate for rate in first if rate not in tried]:
        return left
    chosen = best(tried)
    if chosen is None or len(tried) >= len(first) + MORE:
        return []
    if chosen == max(tried):
        return [rounded(chosen * spacing)]
    if chosen == min(tried):
        return [rounded(chosen / spacing)]
    return []


def best(tried: Tried, noise: float = 0.0) -> float | None:
    """The rate with the best score; of those within `noise` of it the smallest. None where every trial has failed."""
    scores = finite(tried)
    if not scores:
        return None
    top = max(scores.values())
    return min(rate for rate, score in scores.items() if score >= top - noise)


def to_confirm(tried: Tried, noise: float = 0.0) -> list[float]:
    """The best rate and the next one below it, to be tried with the whole budget: a short one favours high rates."""
    chosen = best(tried, noise)
    if chosen is None:
        return []
    lower = max((rate for rate in tried if rate < chosen), default=None)
    return [chosen] if lower is None else [lower, chosen]


def settled(tried: Tried) -> bool:
    """Whether the best rate has a tried one on both sides."""
    chosen = best(tried)
    return chosen is not None and min(tried) < chosen < max(tried)


def refinement(tried: Tried, spacing: float = SPACING) -> float | None:
    """The geometric mean of the two best rates, where these are neighbours; None where there is one between already."""
    scores = finite(tried)
    rates = sorted(tried)
    if len(scores) < 2 or any(high / low < spacing**0.75 for low, high in pairwise(rates)):
        return None
    first, second = sorted(scores, key=lambda rate: (-scores[rate], rate))[:2]
    neighbours = abs(rates.index(first) - rates.index(second)) == 1
    return rounded(math.sqrt(first * second)) if neighbours else None


def usable(tried: Tried, share: float = 0.9, worst: float = 0.0) -> list[float]:
    """The rates whose score is within `share` of the way from `worst` to the best one, in ascending order."""
    scores = finite(tried)
    least = worst + share * (max(scores.values(), default=worst) - worst)
    return sorted(rate for rate, score in scores.items() if score >= least)


def window(tried: Tried, share: float = 0.9, worst: float = 0.0) -> float:
    """How many decades the usable rates span: room for a wrong one; 0 where every trial has failed."""
    good = usable(tried, share, worst)
    return math.log10(good[-1] / good[0]) if good else 0.0


def expected_best(scores: Sequence[float], trials: int) -> float:
    """The expected best score of that many trials drawn from these without replacement (Tang et al. 2020).

    Σ_j y_(j) · C(j - 1, n - 1) / C(B, n), over the scores in ascending order. Raises ValueError for more trials than
    there are scores.
    """
    if not 1 <= trials <= len(scores):
        raise ValueError(f"{trials} trials of {len(scores)}")
    ways = math.comb(len(scores), trials)
    ordered = enumerate(sorted(scores), 1)
    return sum(score * math.comb(place - 1, trials - 1) / ways for place, score in ordered)
