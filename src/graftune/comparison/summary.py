"""The results of a comparison averaged over seeds, ordered, and judged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from graftune.comparison.results import Comparison, Run, sign
from graftune.comparison.units import DASH, count, size_in_bytes

CLOSE: Final = 0.05  # within this share of the best, quality counts as close


@dataclass(frozen=True)
class Stat:
    """A mean over seeds; the sample standard deviation from two seeds on."""

    mean: float
    spread: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat | None:
        """The statistic of the values that were measured, or None if none was."""
        measured = [float(value) for value in values if value is not None]
        if not measured:
            return None
        if not all(map(math.isfinite, measured)):
            return cls(math.nan)
        return cls(statistics.fmean(measured), statistics.stdev(measured) if len(measured) > 1 else None)


@dataclass(frozen=True)
class MethodRow:
    """One method, averaged over the seeds that finished."""

    method: str
    label: str
    done: tuple[Run, ...]
    failed: tuple[Run, ...]
    metrics: dict[str, Stat] = field(default_factory=dict)
    quality: Stat | None = None
    parameters_trained: Stat | None = None
    parameters_stored: Stat | None = None
    bytes_stored: Stat | None = None
    train_seconds: Stat | None = None
    tokens_per_second: Stat | None = None
    peak_memory_bytes: Stat | None = None
    inference_seconds_per_example: Stat | None = None
    inference_ratio: Stat | None = None
    untrained: bool = False

    @property
    def ok(self) -> bool:
        """Whether at least one seed finished with a usable quality."""
        return self.quality is not None and math.isfinite(self.quality.mean)

    @property
    def note(self) -> str:
        """Why the row is incomplete; empty for a complete one."""
        if not self.failed:
            return "" if self.ok else "the quality is not a number: training diverged"
        reason = (self.failed[-1].error or "no reason was recorded").strip().splitlines()[0]
        if not self.done:
            return f"failed: {reason}"
        return f"{len(self.failed)} of {len(self.failed) + len(self.done)} seeds failed: {reason}"

    @property
    def overfits(self) -> bool:
        """Whether at least half of the seeds overfitted."""
        return bool(self.done) and 2 * sum(run.overfits for run in self.done) >= len(self.done)


_MEASURED: Final = (
    "parameters_trained", "parameters_stored", "bytes_stored", "train_seconds", "tokens_per_second",
    "peak_memory_bytes", "inference_seconds_per_example", "inference_ratio",
)  # fmt: skip


def rows(comparison: Comparison) -> list[MethodRow]:
    """One row per method: the best first, then those without a usable quality, with the reason."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in comparison.reported:
        groups.setdefault((run.method, run.label), []).append(run)
    metric = comparison.header.metric
    made = [_row(method, label, runs, metric) for (method, label), runs in groups.items()]
    return sorted((r for r in made if r.ok), key=_worse_later(metric)) + [r for r in made if not r.ok]


def _row(method: str, label: str, runs: Sequence[Run], metric: str) -> MethodRow:
    done = tuple(run for run in runs if run.status == "done")
    failed = tuple(run for run in runs if run.status == "failed")
    names = dict.fromkeys(name for run in done for name in run.metrics)
    stats = {name: Stat.of(run.metrics.get(name) for run in done) for name in names}
    measured: dict[str, Any] = {name: Stat.of(getattr(run, name) for run in done) for name in _MEASURED}
    return MethodRow(
        method,
        label,
        done,
        failed,
        metrics={name: stat for name, stat in stats.items() if stat},
        quality=stats.get(metric),
        untrained=bool(done) and all(run.untrained for run in done),
        **measured,
    )


def _worse_later(metric: str) -> Callable[[MethodRow], float]:
    return lambda row: -sign(metric) * row.quality.mean if row.quality else math.inf


def _is_close(row: MethodRow, best: MethodRow, metric: str, share: float = CLOSE) -> bool:
    """Whether its middle seed is as good as the worst seed of the best, or its mean within a share of the best's.

    The middle seed, since a method of which one seed diverged has a wide spread, and is not level for that.
    """
    assert row.quality is not None
    assert best.quality is not None
    own, other = ([sign(metric) * run.metrics[metric] for run in r.done if metric in run.metrics] for r in (row, best))
    if statistics.median(own) >= min(other):
        return True
    return abs(best.quality.mean - row.quality.mean) <= share * abs(best.quality.mean)


def verdict(comparison: Comparison) -> list[str]:
    """What the numbers say, in sentences that claim no more than they do; the first is the headline."""
    every = rows(comparison)
    ranked = [row for row in every if row.ok]
    if not ranked:
        return ["No method has finished with a usable result."]
    best, digits, metric = ranked[0], decimals(every), comparison.header.metric
    said = [f"Best quality: {best.label}, with {metric} {quality(best.quality, digits)}."]
    if level := [row.label for row in ranked[1:] if _is_close(row, best, metric, share=0)]:
        said.append(f"Level with it, by the spread over seeds: {', '.join(level)}.")
    sized = [row for row in ranked if row.parameters_stored and _is_close(row, best, metric)]
    smallest = min(sized, key=_stored, default=best)
    if _stored(smallest) < _stored(best):
        said.append(
            f"Smallest within the seed spread or 5 % of it: {smallest.label}, "
            f"with {quality(smallest.quality, digits)} and {_size(smallest)}."
        )
    elif len(ranked) > 1 and _stored(best) == 0:
        said.append(f"Nothing needs to be stored for {best.label}.")
    elif len(ranked) > 1 and best.parameters_stored:
        said.append(f"No smaller method comes within the seed spread or 5 % of it; it has {_size(best)}.")
    untrained = next((place for place, row in enumerate(ranked) if row.untrained), len(ranked))
    if below := [row.label for row in ranked[untrained + 1 :] if not row.untrained]:
        said.append(f"Not better than {ranked[untrained].label}, which needs no training: {', '.join(below)}.")
    if overfitted := [row.label for row in ranked if row.overfits]:
        said.append(f"Overfitting (eval loss ended over 5 % above its minimum): {', '.join(overfitted)}.")
    if max(len(row.done) for row in ranked) == 1:
        said.append("One seed: differences of this size may be noise.")
    if failed := [row.label for row in every if not row.ok]:
        said.append(f"Without a result: {', '.join(failed)}.")
    return said


def _stored(row: MethodRow) -> float:
    return row.parameters_stored.mean if row.parameters_stored else math.inf


def _size(row: MethodRow) -> str:
    if not row.parameters_stored or not row.parameters_stored.mean:
        return "nothing to store"
    size = f"{count(row.parameters_stored.mean)} stored parameters"
    return f"{size} ({size_in_bytes(row.bytes_stored.mean)})" if row.bytes_stored else size


def decimals(rows: Sequence[MethodRow]) -> int:
    """How many decimals the qualities of a comparison are shown with: fewer on a scale up to a hundred."""
    return 1 if any(row.quality and row.ok and abs(row.quality.mean) >= 5 for row in rows) else 3


def quality(stat: Stat | None, digits: int) -> str:
    """``31.4 ± 0.5``; without a spread if there was one seed."""
    if stat is None:
        return DASH
    if not math.isfinite(stat.mean):
        return "not a number"
    spread = f" ± {stat.spread:.{digits}f}" if stat.spread is not None else ""
    return f"{stat.mean:.{digits}f}{spread}"
