"""An estimate of what a comparison will take, from a few timed steps of each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftune.comparison import units
from graftune.comparison.plan import Plan


@dataclass(frozen=True)
class Cost:
    """What a candidate takes: seconds to begin a trial, for a step, for a row to choose by and for one to report.

    `finish` is what a reported trial takes beside its rows: saving, timing, forgetting. `joules` are those of a second.
    """

    begin: float
    step: float
    choose_row: float
    report_row: float
    finish: float
    memory: float | None
    joules: float


@dataclass(frozen=True)
class Estimate:
    """Seconds of a whole plan, the largest peak of memory, and the energy."""

    seconds: float
    memory: float | None
    joules: float
    trials: int

    def said(self) -> str:
        """In words, before the start."""
        memory = "" if self.memory is None else f", up to {units.size_in_bytes(self.memory)} above the base"
        return f"about {self.trials} trials, {units.duration(self.seconds)}{memory}, {units.energy(self.joules)}"


@dataclass(frozen=True)
class Sizes:
    """What the trials of a plan have in common: steps of a short and of a full run, and rows of each kind."""

    short_steps: int
    steps: int
    choose_rows: int
    curve_rows: int
    short_points: int
    """Points of a short run's curve; `points` are those of a full one."""
    points: int
    report_rows: int
    folds: int = 1
    """How often a trial of the search trains and chooses, on other rows each time."""


def estimate(plan: Plan, costs: Mapping[str, Cost], sizes: Sizes, workers: int = 1) -> Estimate:
    """Sum the trials that the plan will have where no search is extended, and share them out among workers."""
    seconds = joules = 0.0
    trials = 0
    peaks: Sequence[float] = [cost.memory for cost in costs.values() if cost.memory is not None]
    for label, cost in costs.items():
        short_curve, curve = (
            count * sizes.curve_rows * cost.choose_row for count in (sizes.short_points, sizes.points)
        )
        short, full = plan.to_search(label)
        reported = len(plan.seeds) * len(plan.sizes)
        choosing = cost.begin + sizes.choose_rows * cost.choose_row
        searching = short * (choosing + short_curve + sizes.short_steps * cost.step)
        own = sizes.folds * (searching + full * (choosing + curve + sizes.steps * cost.step))
        own += reported * (
            cost.begin + curve + sizes.steps * cost.step + sizes.report_rows * cost.report_row + cost.finish
        )
        seconds, joules, trials = seconds + own, joules + own * cost.joules, trials + short + full + reported
    return Estimate(seconds / workers, max(peaks, default=None), joules, trials)
