"""Figures of several runs as text, and Markdown tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from sides.records import Record, environment, numbers


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text."""
    rule = ["--", *["--:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def ratio(above: list[Record], below: list[Record], column: str = "seconds") -> str:
    """The median, over rounds, of the ratio within a round, with the smallest and the largest."""
    found = [a / b for a, b in zip(numbers(above, column), numbers(below, column), strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def median(rows: list[Record], column: str, scale: float = 1.0) -> float:
    """The median of a column's numbers, times ``scale``."""
    return scale * statistics.median(numbers(rows, column))


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation; the mean alone of one value."""
    spread = f" ± {deviation(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; not a number for one value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The difference of the means, in units of the pooled standard deviation."""
    pooled = ((deviation(ours) ** 2 + deviation(theirs) ** 2) / 2) ** 0.5
    gap = statistics.mean(ours) - statistics.mean(theirs)
    return f"{gap / pooled:+.1f}" if pooled > 0 else "-"


def facts(rows: list[Record]) -> str:
    """The line below a table: machine, threads and versions."""
    row = rows[-1]
    return ", ".join([row["threads"] + " threads", *(f"{name} {row[name]}" for name in environment())])
