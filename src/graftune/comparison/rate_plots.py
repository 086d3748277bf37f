"""Plots of a search: the score that each of a candidate's rates was chosen by, and what it changed in the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from graftune.comparison import search
from graftune.comparison.lines import Run, sign
from graftune.comparison.plots import FAMILIES, INK, SOFT, STYLE, family, svg_of
from graftune.comparison.points import finite
from graftune.comparison.results import Comparison

#: A small plot is as large as a learning curve's.
SIZE: Final = (3.1, 2.0)
DECADES: Final = 10**3  # that changes are drawn over


def rates(comparison: Comparison) -> list[dict[str, Any]]:
    """A small plot for each candidate that was searched: short runs as a line, full ones as rings, failed ones below.

    The band is the usable window: rates whose score is within 90 % of the way from the worst to the best.
    """
    plots = []
    for place, (label, method) in enumerate(_methods(comparison).items()):
        screened, confirmed = (comparison.tried(label, stage) for stage in ("screen", "confirm"))
        known = finite(screened)
        if len(known) < 2:
            continue
        worst = min(known.values())
        good = search.usable(screened, worst=worst)
        shown = _upright(comparison, known.values())
        with matplotlib.rc_context(STYLE):
            figure, axes = _small(lambda rate, _: f"{rate:.0e}".replace("e-0", "e-"))
            colour = FAMILIES[family(method)][1]
            axes.axvspan(good[0] / 1.2, good[-1] * 1.2, color=colour, alpha=0.12, linewidth=0)
            ordered = sorted(known)
            axes.plot(
                ordered, [shown * known[rate] for rate in ordered], "o-", color=colour, markersize=4, linewidth=1.2
            )
            _rings(axes, [(rate, shown * score) for rate, score in confirmed.items() if score is not None])
            for rate in screened.keys() - known.keys():
                axes.plot(rate, shown * worst, "x", color=SOFT, markersize=6)
            width = search.window(screened, worst=worst)
            svg = svg_of(figure, f"rate{place}", f"score of {label} by learning rate")
        plots.append({"label": label, "method": method, "svg": svg, "window": f"{width:.1f} decades"})
    return plots


def changes(comparison: Comparison, change: str) -> list[dict[str, Any]]:
    """A small plot for each candidate: what its trials were chosen by against what they changed in the base.

    All have the same axes. `change` is the name of the measure, as `Run.forgetting` has it.
    """
    found: dict[str, list[Run]] = {}
    for run in comparison.runs:
        if run.score is not None and math.isfinite(run.score) and change in run.forgetting:
            found.setdefault(run.label, []).append(run)
    every = [run for runs in found.values() for run in runs]
    if len(every) < 2:
        return []
    least = max(run.forgetting[change] for run in every) / DECADES  # what changes less changes nothing
    shown = _upright(comparison, [run.score for run in every if run.score is not None])
    points = {
        label: [(run.stage, max(run.forgetting[change], least), shown * (run.score or 0)) for run in _by_rate(runs)]
        for label, runs in found.items()
    }
    xs, ys = zip(*((x, y) for of in points.values() for _, x, y in of), strict=True)
    room = 0.08 * (max(ys) - min(ys)) or 0.1
    plots, methods = [], _methods(comparison)
    with matplotlib.rc_context(STYLE):
        for place, (label, of) in enumerate(points.items()):
            figure, axes = _small(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e"))
            axes.set(xlim=(min(xs) / 2, max(xs) * 2), ylim=(min(ys) - room, max(ys) + room))
            colour = FAMILIES[family(methods[label])][1]
            short = [(x, y) for stage, x, y in of if stage == "screen"]
            axes.plot(*zip(*short, strict=True), "o-", color=colour, markersize=4, linewidth=1.2) if short else None
            _rings(axes, [(x, y) for stage, x, y in of if stage != "screen"])
            svg = svg_of(figure, f"change{place}", f"score of {label} by what it changes in the base")
            plots.append({"label": label, "method": methods[label], "svg": svg})
    return plots


def _methods(comparison: Comparison) -> dict[str, str]:
    return {run.label: run.method for run in comparison.runs}


def _by_rate(runs: list[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.rate or 0.0)


def _upright(comparison: Comparison, scores: Iterable[float]) -> int:
    """-1 where scores are shown as losses, which they are the negatives of."""
    direction = sign(comparison.header.metric)
    return direction if all(direction * score >= 0 for score in scores) else 1


def _small(form: Callable[[float, int | None], str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=72, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(form))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure, axes


def _rings(axes: Axes, points: Iterable[tuple[float, float]]) -> None:
    for point in points:
        axes.plot(*point, "o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
