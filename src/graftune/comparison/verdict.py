"""The verdict of a comparison: who is better than whom, how sure that is, and what would settle the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from graftune.comparison import statistics
from graftune.comparison.lines import sign
from graftune.comparison.results import Comparison, figures_of, unreadable
from graftune.comparison.statistics import Difference, Scored, Verdict
from graftune.tasks.metrics.scores import FORMULAS

MARGIN: Final = 0.01  # of a metric's scale: differences below it matter to nobody


@dataclass(frozen=True)
class Judgement:
    """Labels from the best to the worst, what the best has over each, and each one's own score with its interval.

    `chances` are the probabilities of being the best; `margin` is in the metric's own unit. `seeds` are those that all
    of the candidates have finished, by which they are judged.
    """

    labels: Sequence[str]
    margin: float
    scores: Mapping[str, Difference]
    differences: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]
    chances: Mapping[str, float]
    seeds: Sequence[int]
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
            statistics.needed(self.differences[label], self.margin, len(self.seeds), self.rows)
            for label in self.said("open")
        ]
        seeds, rows = ([one[which] for one in found] for which in (0, 1))
        return _all(seeds), _all(rows)


def judge(comparison: Comparison) -> Judgement | None:
    """The judgement of all candidates by the seeds that each of them has finished.

    None where fewer than two candidates have a seed in common, or the figures of their rows are missing.
    """
    found: Judgement | None = comparison.once("judgement", lambda: _judged(comparison))
    return found


def _judged(comparison: Comparison) -> Judgement | None:
    stored = {run.label: run.parameters_stored or 0 for run in comparison.scored}
    seeds, chosen = _together(comparison, list(stored))
    if len(chosen) < 2:
        return None
    direction = sign(comparison.header.metric)
    means = {label: float(one.metric().mean()) for label, one in chosen.items()}
    ordered = sorted(chosen, key=lambda label: (-means[label], stored[label]))
    candidates = [chosen[label] for label in ordered]
    margin = margin_of(candidates[0], max(map(abs, means.values())))
    draws = statistics.Draws.of(candidates)
    found = draws.differences(margin, 0)
    over = {label: one for label, one in zip(ordered, found, strict=True) if one is not None}
    chances = statistics.chances(draws.both)
    return Judgement(
        ordered,
        margin,
        {
            label: _turned(_inside(one, candidates[0]), direction)
            for label, one in zip(ordered, draws.alone(), strict=True)
        },
        over,
        statistics.verdicts(over, margin),
        {label: float(chance) for label, chance in zip(ordered, chances, strict=True)},
        seeds=seeds,
        rows=candidates[0].figures.shape[1],
    )


def difference(comparison: Comparison, first: str, second: str) -> Difference | None:
    """What one candidate has over another, in the direction in which it is better; None where a run is missing."""
    _, chosen = _together(comparison, [first, second])
    if len(chosen) < 2:
        return None
    known = [chosen[first], chosen[second]]
    margin = margin_of(known[0], max(abs(float(one.metric().mean())) for one in known))
    return statistics.Draws.of(known).differences(margin, 0)[1]


def _together(comparison: Comparison, labels: Sequence[str]) -> tuple[list[int], dict[str, Scored]]:
    """The seeds that all of the candidates have finished, and their figures; none where any are missing."""
    done = [{run.seed for run in comparison.scored if run.label == label} for label in labels]
    seeds = sorted(set.intersection(*done)) if done else []
    read = {label: _scored(comparison, label, seeds) for label in labels}
    found = {label: one for label, one in read.items() if one is not None}
    alike = len({one.figures.shape[:2] for one in found.values()}) == 1
    return seeds, found if alike and len(found) == len(labels) else {}


def margin_of(one: Scored, largest: float) -> float:
    """A point of a metric that counts to a hundred, 0.01 of one that counts to one, 1 % of the largest of any other."""
    if one.sign < 0 or largest > 100 * max(one.scale, 1.0):
        return MARGIN * largest
    return MARGIN * (100.0 if one.formula == "bleu" or largest > 1.0 else 1.0)


def _scored(comparison: Comparison, label: str, seeds: Sequence[int]) -> Scored | None:
    """The figures of a candidate's runs, (seeds, rows, figures); None where a file is missing or a figure no number.

    Raises GraftuneError for files that are damaged.
    """
    kept = [figures_of(comparison.folder, label, seed) for seed in seeds]
    if not kept or not all(file.is_file() for file in kept):
        return None
    read = [_read(file) for file in kept]
    shapes = {one[2].shape for one in read}
    if len(shapes) > 1:
        raise unreadable(kept[0].parent, f"files of {label} with {' and '.join(str(one[0]) for one in shapes)} rows")
    figures = np.stack([one[2] for one in read])
    if not np.isfinite(figures).all():
        return None
    return Scored(figures, read[0][0], read[0][1], sign(comparison.header.metric))


def _read(file: Path) -> tuple[str, float, np.ndarray]:
    """Formula, scale and figures, (rows, figures), of one run. Raises GraftuneError for a damaged file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        figures = np.array(found["rows"], dtype=float)
        if found["formula"] not in FORMULAS or figures.ndim != 2 or not figures.size:
            raise ValueError("no table of figures")
        return found["formula"], float(found["scale"]), figures
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable(file, str(error)) from error


def _inside(one: Difference, scored: Scored) -> Difference:
    """A score whose interval does not leave the values that the metric can have, where these are known."""
    top = scored.largest
    if top is None or not 0 <= one.mean <= top:
        return one
    return replace(one, low=max(0.0, one.low), high=min(top, one.high))


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
