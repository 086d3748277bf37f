"""A comparison as a table: for the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from graftune.comparison.results import Comparison, Header
from graftune.comparison.sentences import verdict, warnings
from graftune.comparison.summary import MethodRow, Stat, decimals, quality, rows
from graftune.comparison.units import DASH, count, duration, energy, percent, size_in_bytes
from graftune.comparison.verdict import judge

TIMES: Final = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Column:
    """A column: its heading, its text for a row, and the number by which it sorts."""

    heading: str
    text: Callable[[MethodRow], str]
    key: Callable[[MethodRow], Stat | None]


def columns(comparison: Comparison) -> list[Column]:
    """The measured columns, after the method's name."""
    header, digits = comparison.header, decimals(rows(comparison))

    def trained(row: MethodRow) -> str:
        if not row.parameters_trained or not row.parameters_trained.mean:
            return shown(row.parameters_trained, count)
        share = row.parameters_trained.mean / header.base_parameters if header.base_parameters else math.nan
        return f"{count(row.parameters_trained.mean)} ({percent(share)})"

    def stored(row: MethodRow) -> str:
        if not row.parameters_stored or not row.bytes_stored:
            return DASH
        return f"{count(row.parameters_stored.mean)}, {size_in_bytes(row.bytes_stored.mean)}"

    def rate(row: MethodRow) -> str:
        options = f" ({row.options})" if row.options else ""
        return shown(row.rate, lambda value: f"{value:.2g}") + options

    def peak(row: MethodRow) -> str:
        return shown(row.peak_memory_bytes, size_in_bytes)

    def used(row: MethodRow) -> str:
        per_thousand = shown(row.joules_per_answer, lambda joules: energy(1000 * joules))
        return f"{shown(row.joules, energy)} ({per_thousand})" if row.joules_per_answer else shown(row.joules, energy)

    def latency(row: MethodRow) -> str:
        merged = f", merged {row.merged_ratio.mean:.2f}{TIMES}" if row.merged_ratio else ""
        return _timed(row.latency, row.latency_ratio, merged)

    def batched(row: MethodRow) -> str:
        return _timed(row.batched, row.batched_ratio)

    largest = max((speed.batch for run in comparison.reported for speed in run.inference), default=32)
    judgement = judge(comparison)

    def score(row: MethodRow) -> str:
        one = judgement.scores.get(row.label) if judgement else None
        return (
            f"{one.mean:.{digits}f} ({one.low:.{digits}f} to {one.high:.{digits}f})"
            if one
            else quality(row.quality, digits)
        )

    def also(name: str) -> Column:
        """The same metric on other rows: one more file, and groups that were trained on and others."""
        return Column(name, lambda r: quality(r.metrics.get(name), digits), lambda r: r.metrics.get(name))

    others = (f"test {header.metric}", f"{header.metric} seen", f"{header.metric} unseen")
    known = {name for run in comparison.reported for name in run.metrics}
    return [
        Column(header.metric, score, lambda r: r.quality),
        *(also(name) for name in others if name in known),
        Column("rate", rate, lambda r: r.rate),
        Column("trained (of base)", trained, lambda r: r.parameters_trained),
        Column("stored", stored, lambda r: r.bytes_stored),
        Column("training", lambda r: shown(r.train_seconds, duration), lambda r: r.train_seconds),
        Column("tokens/s", lambda r: shown(r.tokens_per_second, count), lambda r: r.tokens_per_second),
        Column("peak memory", peak, lambda r: r.peak_memory_bytes),
        Column("energy (1,000 answers)", used, lambda r: r.joules),
        Column("ms alone (of base)", latency, lambda r: r.latency),
        Column(f"ms in {largest} (of base)", batched, lambda r: r.batched),
    ]


def _timed(seconds: Stat | None, ratio: Stat | None, more: str = "") -> str:
    time = shown(seconds, lambda s: f"{1000 * s:.3g}")
    return f"{time} ({ratio.mean:.2f}{TIMES}{more})" if ratio else time


def title(header: Header) -> str:
    """One line that names the comparison."""
    seeds = f"{len(header.seeds)} seed{'s' * (len(header.seeds) != 1)}"
    return f"{header.task} on {header.base}, {header.budget}, {seeds}"


def terminal(comparison: Comparison) -> Table:
    """The table for a terminal, with the verdict as its caption."""
    shape = columns(comparison)
    every = rows(comparison)
    notes = [f"* {row.label}: {row.note}" for row in every if row.note]
    # Text objects throughout: brackets in a label or an error must not be read as rich's markup.
    table = Table(
        title=Text(title(comparison.header)),
        caption=Text("\n".join([*warnings(comparison), *verdict(comparison), *notes])),
        box=box.SIMPLE_HEAD,
        caption_justify="left",
    )
    table.add_column("method")
    for column in shape:
        table.add_column(Text(column.heading), justify="right")
    for place, row in enumerate(every):
        cells = [column.text(row) for column in shape] if row.done else ["failed"]
        style = "red" if not row.ok else "bold" if place == 0 else ""
        table.add_row(Text(row.label + " *" * bool(row.note)), *map(Text, cells), style=style)
    return table


def markdown(comparison: Comparison) -> str:
    """The table and the verdict as Markdown."""
    header = comparison.header
    shape = columns(comparison)
    headline, *others = map(_cell, verdict(comparison))
    lines = [
        f"## {_cell(title(header))}",
        "",
        " ".join([f"**{headline}**", *others]),
        *([""] + [f"- {_cell(one)}" for one in said] if (said := warnings(comparison)) else []),
        "",
        _line(["method", *(column.heading for column in shape)]),
        "|:--|" + "--:|" * len(shape),
    ]
    for row in rows(comparison):
        cells = [column.text(row) for column in shape] if row.done else [row.note, *[""] * (len(shape) - 1)]
        lines.append(_line([row.label + (f" ({row.note})" if row.note and row.done else ""), *cells]))
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    sizes = f"{header.train_rows:,} training rows, {header.eval_rows:,} eval rows"
    facts = [sizes, header.machine, versions, header.created]
    return "\n".join([*lines, "", _cell(" · ".join(filter(None, facts))), ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text that stays one cell and is never read as markup."""
    escaped = "".join("\\" + char if char in "\\`*_[]<>|#" else char for char in text)
    return " ".join(escaped.split())


def shown(stat: Stat | None, form: Callable[[float], str]) -> str:
    """The mean in the given form, or a dash where nothing was measured."""
    return form(stat.mean) if stat and math.isfinite(stat.mean) else DASH
