"""Which of two candidates is better: a paired bootstrap over seeds and rows, a margin, and what would settle the rest.

One draw takes seeds and rows with replacement, the same for all candidates. A bootstrap of few seeds or rows is too
sure of itself: where no drawn row tells two candidates apart, it sees no spread at all. So noise of the size of one row
is added to each candidate's draws (a smoothed bootstrap, Silverman and Young 1987; for paired proportions much what
Agresti and Min 2005 add). Then the draws are stretched: their variance is that of the seeds (with S - 1 degrees of
freedom) plus that of the rows (with N - 1), and their tails are Student's, with the degrees of freedom of that sum
(Satterthwaite 1946).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import stats

from graftune.tasks.metrics.scores import FORMULAS

DRAWS: Final = 10_000
AT_ONCE: Final = 250  # draws whose weights are held at a time
WRONG: Final = 0.025  # how often "better" may be said of equals, in either direction
SURE: Final = 0.95  # of being within the margin, to be called equal
POWER: Final = 0.8
LARGEST: Final = {"bleu": 100.0}  # values of formulas that count further than to one

Verdict = Literal["better", "equal", "open"]


@dataclass(frozen=True)
class Scored:
    """The figures of a candidate's rows for each seed, (seeds, rows, figures), and the formula of their sums."""

    figures: np.ndarray
    formula: str
    scale: float = 1.0
    sign: int = 1
    """-1 where lower is better."""

    def metric(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric of each seed, larger is better: (seeds,), or (draws, seeds) for `weights` (draws, rows)."""
        if weights is None:
            weights = np.ones((1, self.figures.shape[1]))
            return self.metric(weights)[0]
        sums = np.einsum("dr,srf->dsf", weights, self.figures, optimize=True)
        return self._of(sums)

    @property
    def unit(self) -> float:
        """How much one answer moves the metric: by how much leaving out one row differs from leaving out another.

        A row's share of the whole range where all rows are alike.
        """
        rows = self.figures.shape[1]
        sums = self.figures.sum(1)[:, None]  # (seeds, 1, figures)
        without = self._of(sums - self.figures).mean(0)  # (rows,)
        moved = float(np.ptp(without)) if rows > 1 else 0.0
        return moved or LARGEST.get(self.formula, 1.0) * abs(self.scale) / rows

    @property
    def largest(self) -> float | None:
        """The largest value of the metric, whose smallest is 0; None where it may have any."""
        formula = LARGEST.get(self.formula, 1.0) * abs(self.scale)
        values = self.figures[..., 0]
        shares = self.formula in ("f1", "bleu") or bool(((values >= 0) & (values <= self.figures[..., 1])).all())
        return formula if shares and self.sign > 0 and self.formula != "pearson" else None

    def _of(self, sums: np.ndarray) -> np.ndarray:
        """The metric of sums, (…, figures), larger is better: (…,)."""
        found: np.ndarray = self.sign * self.scale * FORMULAS[self.formula](sums)
        return found


@dataclass(frozen=True)
class Difference:
    """What a candidate has over another one: `mean`, and its 95 % interval from `low` to `high`.

    `above` is the probability that it is above zero, `within` that it lies within the margin. `error` is its standard
    error, of which the seeds' part squared is `of_seeds` and the rows' part squared `of_rows`.
    """

    mean: float
    low: float
    high: float
    above: float
    within: float
    error: float
    of_seeds: float
    of_rows: float
    freedom: float

    @property
    def detectable(self) -> float:
        """The smallest difference that would be called better with probability `POWER`."""
        return self.error * float(stats.t.ppf(1 - WRONG / 2, self.freedom) + stats.t.ppf(POWER, self.freedom))


@dataclass(frozen=True)
class Draws:
    """The metrics of candidates in each draw, (candidates, draws): of seeds and rows, and of rows with all seeds.

    `own` are those of each seed on all rows, (candidates, seeds). Larger is better. `rows` is the number of rows.
    """

    both: np.ndarray
    of_rows: np.ndarray
    own: np.ndarray
    rows: int

    @classmethod
    def of(cls, candidates: Sequence[Scored], draws: int = DRAWS, seed: int = 0) -> Draws:
        """Draw for all candidates alike: they have the same seeds and rows, in the same order. Raises ValueError."""
        if len({one.figures.shape[:2] for one in candidates}) > 1:
            raise ValueError("the candidates have other seeds or rows than each other")
        parts = _draws(candidates, draws, seed)
        both, rows = (np.concatenate([part[which] for part in parts], axis=1) for which in (0, 1))
        units = np.array([one.unit for one in candidates])[:, None] / math.sqrt(2)  # a difference has that of two
        noise = units * np.random.default_rng((seed, 1)).standard_normal(both.shape)
        own = np.stack([one.metric() for one in candidates])
        return cls(both + noise, rows + noise, own, candidates[0].figures.shape[1])

    def differences(self, margin: float, best: int) -> list[Difference | None]:
        """What `best` has over each other candidate; None for itself."""
        parts = (self.both, self.of_rows, self.own)
        both, rows, own = (part[best] - part for part in parts)
        return [
            None if place == best else _difference(both[place], rows[place], own[place], margin, self.rows)
            for place in range(len(own))
        ]

    def alone(self) -> list[Difference]:
        """Each candidate's own metric in the place of a difference: its mean, with an interval."""
        parts = zip(self.both, self.of_rows, self.own, strict=True)
        return [_difference(both, rows, own, 0.0, self.rows) for both, rows, own in parts]


def _draws(candidates: Sequence[Scored], draws: int, seed: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """(candidates, draws) means over drawn seeds and rows, and over all seeds and drawn rows, some draws at a time."""
    random = np.random.default_rng(seed)
    seeds, rows = candidates[0].figures.shape[:2]
    found = []
    for start in range(0, draws, AT_ONCE):
        count = min(AT_ONCE, draws - start)
        weights = random.multinomial(rows, np.full(rows, 1 / rows), size=count).astype(float)
        chosen = random.integers(seeds, size=(count, seeds))
        metrics = [one.metric(weights) for one in candidates]  # (draws, seeds) each
        both = np.stack([np.take_along_axis(metric, chosen, 1).mean(1) for metric in metrics])
        found.append((both, np.stack([metric.mean(1) for metric in metrics])))
    return found


def _difference(both: np.ndarray, rows: np.ndarray, own: np.ndarray, margin: float, count: int) -> Difference:
    """From draws of seeds and rows, of the `count` rows alone, and the difference of each seed, (seeds,)."""
    mean, seeds = float(own.mean()), len(own)
    of_rows = float(rows.var()) * count / max(1, count - 1)
    of_seeds = float(own.var(ddof=1)) / seeds if seeds > 1 else 0.0
    error = math.sqrt(of_rows + of_seeds)
    freedom = error**4 / (of_seeds**2 / max(1, seeds - 1) + of_rows**2 / max(1, count - 1))
    level = 1 - WRONG / 2
    tails = float(stats.t.ppf(level, freedom) / stats.norm.ppf(level))
    spread = float(both.std())
    stretched = mean + (both - both.mean()) * (error / spread) * tails
    low, high = np.quantile(stretched, [0.025, 0.975])
    return Difference(
        mean,
        float(low),
        float(high),
        above=float((stretched > 0).mean()),
        within=float((np.abs(stretched) < margin).mean()),
        error=error,
        of_seeds=of_seeds,
        of_rows=of_rows,
        freedom=freedom,
    )


def verdicts(found: Mapping[str, Difference], margin: float) -> dict[str, Verdict]:
    """Whether the best candidate is better than each other one, practically equal to it, or neither is known.

    Better: above zero with probability 1 - WRONG / 2 after Holm's correction, and by more than the margin on average.
    """
    said: dict[str, Verdict] = {}
    rejecting = True
    for left, (label, one) in enumerate(sorted(found.items(), key=lambda item: -item[1].above)):
        rejecting = rejecting and 1 - one.above <= WRONG / 2 / (len(found) - left)
        if rejecting and one.mean > margin:
            said[label] = "better"
        else:
            said[label] = "equal" if one.within >= SURE else "open"
    return said


def chances(draws: np.ndarray) -> np.ndarray:
    """The probability that each candidate is the best, (candidates,), from draws (candidates, draws)."""
    return np.bincount(draws.argmax(0), minlength=len(draws)) / draws.shape[1]


def needed(one: Difference, margin: float, seeds: int, rows: int) -> tuple[int | None, int | None]:
    """How many seeds (with these rows) or rows (with these seeds) would let twice the margin be seen; None = no number.

    From the parts of the variance, which fall with the number of seeds and with that of rows.
    """
    quantiles = float(stats.norm.ppf(1 - WRONG / 2) + stats.norm.ppf(POWER))
    wanted = (2 * margin / quantiles) ** 2

    def enough(part: float, count: int, other: float) -> int | None:
        return math.ceil(part * count / (wanted - other)) if wanted > other and part else None

    return enough(one.of_seeds, seeds, one.of_rows), enough(one.of_rows, rows, one.of_seeds)
