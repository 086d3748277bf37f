"""The results of a comparison averaged over seeds, ordered, and judged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from graftune.comparison.lines import Run, sign
from graftune.comparison.results import Comparison
from graftune.comparison.units import DASH


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
    latency: Stat | None = None
    latency_ratio: Stat | None = None
    batched: Stat | None = None
    batched_ratio: Stat | None = None
    merged_ratio: Stat | None = None
    joules_per_answer: Stat | None = None
    rate: Stat | None = None
    joules: Stat | None = None
    forgetting: dict[str, Stat] = field(default_factory=dict)
    untrained: bool = False
    options: str = ""
    """Those that were searched with the rate."""

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
    "peak_memory_bytes", "latency", "latency_ratio", "batched", "batched_ratio", "merged_ratio",
    "rate", "joules", "joules_per_answer",
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
    changed = dict.fromkeys(name for run in done for name in run.forgetting)
    changes = {name: Stat.of(run.forgetting.get(name) for run in done) for name in changed}
    measured: dict[str, Any] = {name: Stat.of(getattr(run, name) for run in done) for name in _MEASURED}
    return MethodRow(
        method,
        label,
        done,
        failed,
        metrics={name: stat for name, stat in stats.items() if stat},
        quality=stats.get(metric),
        forgetting={name: stat for name, stat in changes.items() if stat},
        options=", ".join(f"{name}={value}" for name, value in (done[0].options if done else {}).items()),
        untrained=bool(done) and all(run.untrained for run in done),
        **measured,
    )


def _worse_later(metric: str) -> Callable[[MethodRow], tuple[float, float]]:
    """Of equal ones the smaller is first."""

    def key(row: MethodRow) -> tuple[float, float]:
        stored = row.parameters_stored.mean if row.parameters_stored else 0.0
        return (-sign(metric) * row.quality.mean if row.quality else math.inf, stored)

    return key


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
