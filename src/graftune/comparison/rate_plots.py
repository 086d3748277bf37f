"""Plots of a search: the score that each of a candidate's rates was chosen by."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from graftune.comparison import search
from graftune.comparison.plots import FAMILIES, INK, SOFT, STYLE, family, svg_of
from graftune.comparison.results import Comparison, sign


def rates(comparison: Comparison) -> list[dict[str, Any]]:
    """A small plot for each candidate that was searched: short runs as a line, full ones as rings, failed ones below.

    The band is the usable window: rates whose score is within 90 % of the way from the worst to the best.
    """
    plots = []
    methods = {run.label: run.method for run in comparison.runs}
    direction = sign(comparison.header.metric)
    for place, label in enumerate(methods):
        screened, confirmed = (comparison.tried(label, stage) for stage in ("screen", "confirm"))
        known = search.finite(screened)
        if len(known) < 2:
            continue
        worst = min(known.values())
        good = search.usable(screened, worst=worst)
        shown = direction if all(direction * score >= 0 for score in known.values()) else 1
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(3.1, 2.0), dpi=72, layout="constrained")
            axes = figure.add_subplot()
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0e}".replace("e-0", "e-")))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(MaxNLocator(4))
            colour = FAMILIES[family(methods[label])][1]
            axes.axvspan(good[0] / 1.2, good[-1] * 1.2, color=colour, alpha=0.12, linewidth=0)
            ordered = sorted(known)
            axes.plot(
                ordered, [shown * known[rate] for rate in ordered], "o-", color=colour, markersize=4, linewidth=1.2
            )
            for rate, score in confirmed.items():
                if score is not None:
                    axes.plot(rate, shown * score, "o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
            for rate in screened.keys() - known.keys():
                axes.plot(rate, shown * worst, "x", color=SOFT, markersize=6)
            width = search.window(screened, worst=worst)
            svg = svg_of(figure, f"rate{place}", f"score of {label} by learning rate")
        plots.append({"label": label, "method": methods[label], "svg": svg, "window": f"{width:.1f} decades"})
    return plots
