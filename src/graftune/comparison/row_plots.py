"""Learning curves over the size of the data: quality by the number of training rows."""

from __future__ import annotations

import math

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from graftune.comparison.plots import FAMILIES, INK, STYLE, family, svg_of
from graftune.comparison.results import Comparison


def by_rows(comparison: Comparison) -> dict[str, dict[int, float]]:
    """The mean of the metric over seeds, for each candidate and number of training rows."""
    header, found = comparison.header, dict[str, dict[int, list[float]]]()
    for run in comparison.runs:
        value = run.metrics.get(header.metric)
        if run.stage == "report" and run.status == "done" and value is not None and math.isfinite(value):
            rows = header.train_rows if run.rows is None else run.rows
            found.setdefault(run.label, {}).setdefault(rows, []).append(value)
    return {
        label: {rows: sum(values) / len(values) for rows, values in sorted(of.items())} for label, of in found.items()
    }


def curves(comparison: Comparison) -> Markup | None:
    """One plot with a line for each candidate; None where all were trained on one number of rows."""
    found = {label: means for label, means in by_rows(comparison).items() if len(means) > 1}
    if not found:
        return None
    methods = {run.label: run.method for run in comparison.runs}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.4), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel="training rows", ylabel=comparison.header.metric, xscale="log")
        places = sorted({rows for means in found.values() for rows in means})
        axes.set_xticks(places)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for label, means in found.items():
            colour = FAMILIES[family(methods[label])][1]
            axes.plot(list(means), list(means.values()), "o-", color=colour, markersize=4, linewidth=1.3)
            end = max(means)
            axes.annotate(label, (end, means[end]), xytext=(6, 0), textcoords="offset points", color=INK, va="center")
        axes.margins(x=0.12)
        return svg_of(figure, "rows", f"{comparison.header.metric} by training rows")
