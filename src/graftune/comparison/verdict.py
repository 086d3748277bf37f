"""The verdict of a comparison: who is better than whom, how sure that is, and what would settle the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from graftune.comparison import statistics
from graftune.comparison.lines import sign
from graftune.comparison.results import Comparison, figures_of
from graftune.comparison.statistics import Difference, Scored, Verdict

MARGIN: Final = 0.01  # of a metric's scale: differences below it matter to nobody


@dataclass(frozen=True)
class Judgement:
    """Labels from the best to the worst, what the best has over each, and each one's own score with its interval.

    `chances` are the probabilities of being the best; `margin` is in the metric's own unit.
    """

    labels: Sequence[str]
    margin: float
    scores: Mapping[str, Difference]
    differences: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]
    chances: Mapping[str, float]
    seeds: int
    rows: int

    @property
    def best(self) -> str:
        """The label with the highest mean."""
        return self.labels[0]

    def said(self, verdict: Verdict) -> list[str]:
        """The labels of which this is said."""
        return [label for label in self.labels[1:] if self.verdicts[label] == verdict]

    def needed(self) -> tuple[int | None, int | None]:
        """How many seeds or rows would let twice the margin be seen in all that is open; None for no number."""
        found = [
            statistics.needed(self.differences[label], self.margin, self.seeds, self.rows)
            for label in self.said("open")
        ]
        seeds, rows = ([one[which] for one in found] for which in (0, 1))
        return _all(seeds), _all(rows)


def judge(comparison: Comparison) -> Judgement | None:
    """The judgement of all candidates whose reported runs have all finished; None where there are fewer than two."""
    found: Judgement | None = comparison.once("judgement", lambda: _judged(comparison))
    return found


def _judged(comparison: Comparison) -> Judgement | None:
    header, chosen = comparison.header, dict[str, Scored]()
    labels = list(dict.fromkeys(run.label for run in comparison.reported))
    for label in labels:
        if (scored := _scored(comparison, label)) is not None:
            chosen[label] = scored
    if len({one.figures.shape[:2] for one in chosen.values()}) > 1 or len(chosen) < 2:
        return None
    direction = sign(header.metric)
    means = {label: float(one.metric().mean()) for label, one in chosen.items()}
    ordered = sorted(chosen, key=lambda label: -means[label])
    candidates = [chosen[label] for label in ordered]
    margin = margin_of(candidates[0], max(map(abs, means.values())))
    draws = statistics.Draws.of(candidates)
    found = draws.differences(margin, 0)
    over = {label: one for label, one in zip(ordered, found, strict=True) if one is not None}
    chances = statistics.chances(draws.both)
    return Judgement(
        ordered,
        margin,
        {label: _turned(one, direction) for label, one in zip(ordered, draws.alone(), strict=True)},
        over,
        statistics.verdicts(over, margin),
        {label: float(chance) for label, chance in zip(ordered, chances, strict=True)},
        seeds=candidates[0].figures.shape[0],
        rows=candidates[0].figures.shape[1],
    )


def difference(comparison: Comparison, first: str, second: str) -> Difference | None:
    """What one candidate has over another, in the direction in which it is better; None where a run is missing."""
    chosen = [_scored(comparison, label) for label in (first, second)]
    known = [one for one in chosen if one is not None]
    if len(known) < 2:
        return None
    margin = margin_of(known[0], max(abs(float(one.metric().mean())) for one in known))
    return statistics.Draws.of(known).differences(margin, 0)[1]


def margin_of(one: Scored, largest: float) -> float:
    """A point of a metric that counts to a hundred, 0.01 of one that counts to one, 1 % of the largest of any other."""
    if one.sign < 0 or largest > 100 * max(one.scale, 1.0):
        return MARGIN * largest
    return MARGIN * (100.0 if one.formula == "bleu" or largest > 1.0 else 1.0)


def _scored(comparison: Comparison, label: str) -> Scored | None:
    """The figures of a candidate's reported runs, (seeds, rows, figures); None where one is missing or no number."""
    header = comparison.header
    done = {run.seed for run in comparison.reported if run.label == label and run.status == "done"}
    if not header.seeds or not set(header.seeds) <= done:
        return None
    kept = [figures_of(comparison.folder, label, seed) for seed in header.seeds]
    if not all(file.is_file() for file in kept):
        return None
    read = [json.loads(file.read_text(encoding="utf-8")) for file in kept]
    figures = np.array([one["rows"] for one in read], dtype=float)
    if figures.ndim != 3 or not np.isfinite(figures).all():
        return None
    return Scored(figures, read[0]["formula"], read[0]["scale"], sign(header.metric))


def _turned(one: Difference, direction: int) -> Difference:
    """A score in the metric's own direction, of one that is larger where better."""
    if direction > 0:
        return one
    return Difference(
        -one.mean, -one.high, -one.low, one.above, one.within, one.error, one.of_seeds, one.of_rows, one.freedom
    )


def _all(counts: Sequence[int | None]) -> int | None:
    """The largest, if all are numbers."""
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None
