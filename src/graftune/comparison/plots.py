"""The plots of a report, as inline SVG in the page's colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from graftune.comparison.summary import MethodRow, Stat, quality

# Matplotlib writes literal colours; each of these stands for a CSS variable, so that a plot follows the
# page's light or dark scheme.
INK, SOFT, GRID = "#010203", "#040506", "#070809"
FAMILIES: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "prompt": ("virtual tokens and prefixes", "#0a0b01", ("prompt", "prefix", "p-tuning", "ptuning")),
    "adapter": (
        "bottleneck adapters",
        "#0a0b02",
        ("houlsby", "pfeiffer", "parallel", "adapter", "bottleneck"),
    ),
    "weight": ("weight deltas and scales", "#0a0b03", ("lora", "dora", "ia3")),
    "copy": ("trained copies of parameters", "#0a0b04", ("freeze", "bitfit", "full", "norm", "head")),
    "other": ("other", "#0a0b05", ()),
}
_VARIABLES: Final = {INK: "ink", SOFT: "soft", GRID: "grid"} | {
    colour: name for name, (_, colour, _) in FAMILIES.items()
}
STYLE: Final = {
    "svg.fonttype": "none", "font.size": 8.5, "axes.edgecolor": GRID, "axes.labelcolor": SOFT,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "text.color": INK, "text.parse_math": False,
}  # fmt: skip


def family(method: str) -> str:
    """The colour group of a method; a method that nobody listed is ``other``."""
    name = method.lower()
    return next((group for group, (_, _, marks) in FAMILIES.items() if any(m in name for m in marks)), "other")


def scatter(
    name: str,
    every: Sequence[MethodRow],
    metric: str,
    digits: int,
    cost: str,
    of: Callable[[MethodRow], Stat | None],
    form: Callable[[float], str],
    units: Sequence[float] = (),
    log: bool = False,
) -> dict[str, Any]:
    """Quality against one cost: a labelled point per trained method, a dashed line per untrained one."""
    heading = f"{metric} against {cost}"
    points = [(row, stat) for row in every if row.ok and not row.untrained and (stat := of(row))]
    points = [(row, stat) for row, stat in points if math.isfinite(stat.mean) and (stat.mean > 0 or not log)]
    if not points:
        return {"heading": heading, "svg": None, "note": ""}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.4), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=cost, ylabel=metric)
        if log:
            axes.set_xscale("log")
        # Ticks are round numbers of minutes or MiB only if the axis counts in them.
        unit = max([size for size in units if size <= max(stat.mean for _, stat in points)], default=1)
        xs = [stat.mean / unit for _, stat in points]
        ys = [row.quality.mean for row, _ in points if row.quality]
        spreads = [row.quality.spread or 0 for row, _ in points if row.quality]
        _limits(axes, xs, ys, spreads, log)
        places = LogLocator(numticks=6) if log else MaxNLocator(4, steps=[1, 2.5, 5, 10])
        axes.xaxis.set_major_locator(places)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value * unit)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        for x, y, spread, (row, _) in zip(xs, ys, spreads, points, strict=True):
            colour = FAMILIES[family(row.method)][1]
            axes.plot([x, x], [y - spread, y + spread], color=colour, linewidth=1.2, alpha=0.45)
            axes.plot(x, y, "o", color=colour, markersize=6.5)
        note = _untrained_lines(axes, every, digits)
        _label(figure, axes, [row.label for row, _ in points], xs, ys, spreads)
        return {"heading": heading, "svg": svg_of(figure, name, heading), "note": note}


def _limits(axes: Axes, xs: list[float], ys: list[float], spreads: list[float], log: bool) -> None:
    """Room around the points, on which the labels will stand."""
    low, high = min(xs), max(xs)
    if log:
        axes.set_xlim(low / 2.5, high * 2.5)
    else:
        room = 0.12 * (high - low) or 0.1 * high or 1
        axes.set_xlim(max(0, low - room), high + room)
    bottom = min(y - spread for y, spread in zip(ys, spreads, strict=True))
    top = max(y + spread for y, spread in zip(ys, spreads, strict=True))
    room = 0.1 * (top - bottom) or 0.05 * abs(top) or 1
    axes.set_ylim(bottom - room, top + room)


def _untrained_lines(axes: Axes, every: Sequence[MethodRow], digits: int) -> str:
    """A line for each untrained method within the axis; the others in words, to keep the axis readable."""
    low, high = axes.get_ylim()
    outside = []
    for row in every:
        if not (row.ok and row.untrained and row.quality):
            continue
        if low < row.quality.mean < high:
            axes.axhline(row.quality.mean, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate(
                row.label, (1, row.quality.mean), xycoords=("axes fraction", "data"), xytext=(0, 2),
                textcoords="offset points", ha="right", va="bottom", color=SOFT, fontsize=7.5,
            )  # fmt: skip
        else:
            outside.append(f"{row.label} {quality(row.quality, digits)}")
    return f"Without training, off this scale: {', '.join(outside)}." if outside else ""


def _label(
    figure: Figure, axes: Axes, labels: list[str], xs: list[float], ys: list[float], spreads: list[float]
) -> None:
    """Write each label near its point, at the place among some forty that covers the least."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    figure.set_layout_engine("none")  # the frame was measured; it must not move any more
    centres = axes.transData.transform(list(zip(xs, ys, strict=True)))
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    for x, y, spread in zip(xs, ys, spreads, strict=True):
        (left, bottom), (_, top) = axes.transData.transform([(x, y - spread), (x, y + spread)])
        taken.append(Bbox.from_extents(left - 2, bottom, left + 2, top))
    taken += [text.get_window_extent(renderer) for text in axes.texts]
    for label, (x, y) in zip(labels, centres, strict=True):
        text = axes.annotate(label, (x, y), xycoords="figure pixels", fontsize=8, color=INK)
        size = text.get_window_extent(renderer)
        text.remove()
        options = []
        for reach in (8, 13, 20, 29, 40):
            for turn in range(8):
                dx, dy = math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)
                left = x + dx * reach + (dx - 1) / 2 * size.width
                bottom = y + dy * reach + (dy - 1) / 2 * size.height
                place = Bbox.from_bounds(left, bottom, size.width, size.height)
                covered = sum(_overlap(place, other) for other in taken)
                outside = size.width * size.height - _overlap(place, frame)
                options.append((covered + 2 * outside + 1.5 * reach, reach, left, bottom, place))
        _, reach, left, bottom, place = min(options, key=lambda option: option[0])
        taken.append(place)
        if reach > 13:
            nearest = min(max(x, place.x0), place.x1), min(max(y, place.y0), place.y1)
            axes.annotate(
                "", nearest, (x, y), xycoords="figure pixels", textcoords="figure pixels",
                arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "shrinkA": 3, "shrinkB": 1},
            )  # fmt: skip
        axes.annotate(label, (left, bottom), xycoords="figure pixels", fontsize=8, va="bottom", color=INK)


def _overlap(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return float(both.width * both.height) if both else 0.0


def curves(every: Sequence[MethodRow]) -> list[dict[str, Any]]:
    """One small plot per trained method, all on the same axes: train loss as lines, eval loss as points."""
    drawn = [row for row in every if any(run.curve for run in row.done)]
    points = [point for row in drawn for run in row.done for point in run.curve]
    losses = sorted(v for p in points for v in (p.loss, p.eval_loss) if v is not None and math.isfinite(v))
    if not losses:
        return []
    # One method that diverged must not flatten the curves of all the others.
    low, high = losses[0], losses[int(0.995 * (len(losses) - 1))]
    room = 0.06 * (high - low) or 0.1
    last = max(point.step for point in points) or 1
    plots = []
    with matplotlib.rc_context(STYLE):
        for place, row in enumerate(drawn):
            figure = Figure(figsize=(3.1, 2.0), dpi=72, layout="constrained")
            axes = figure.add_subplot()
            axes.set(xlim=(-0.03 * last, 1.03 * last), ylim=(low - room, high + room))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            colour = FAMILIES[family(row.method)][1]
            for run in row.done:
                train = [(p.step, p.loss) for p in run.curve if p.loss is not None]
                held_out = [(p.step, p.eval_loss) for p in run.curve if p.eval_loss is not None]
                strength = 1 / math.sqrt(len(row.done))
                axes.plot(*zip(*train, strict=True), color=colour, linewidth=1.3, alpha=strength) if train else None
                if held_out:
                    axes.plot(*zip(*held_out, strict=True), "o", color=INK, markersize=3, alpha=strength)
            svg = svg_of(figure, f"curve{place}", f"loss of {row.label} by step")
            plots.append({"row": row, "svg": svg})
    return plots


def svg_of(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an inline SVG in the page's colours, with ids that are its own."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    label = Markup.escape(description)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
