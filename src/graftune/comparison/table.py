"""The results of a comparison: read from its folder, averaged over seeds, judged, and shown as a table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from graftune.errors import GraftuneError, unknown

LOWER_IS_BETTER: Final = frozenset({"loss", "perplexity", "wer", "cer", "ter", "mae", "mse", "rmse"})
CLOSE: Final = 0.05  # within this share of the best, quality counts as close
OVERFIT: Final = 1.05  # a final eval loss above this many times its own minimum counts as overfitting
DASH: Final = "\N{EN DASH}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"


class Header(BaseModel):
    """What was compared, on what, and where."""

    task: str
    base: str
    base_parameters: int
    base_bytes: int
    train: str
    eval: str
    train_rows: int
    eval_rows: int
    metric: str
    budget: str
    seeds: list[int]
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    created: str = ""


class CurvePoint(BaseModel):
    """One measured step of a training run."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None


class Example(BaseModel):
    """One generated output beside what was asked for."""

    input: str
    prediction: str
    references: list[str] = Field(default_factory=list)


class Run(BaseModel):
    """One method with one seed. A failed run has an error and none of the measurements."""

    method: str
    label: str
    seed: int
    status: Literal["done", "failed"]
    error: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    parameters_trained: int | None = None
    parameters_stored: int | None = None
    bytes_stored: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: float | None = None
    inference_seconds_per_example: float | None = None
    base_inference_seconds_per_example: float | None = None
    train_loss: float | None = None
    curve: list[CurvePoint] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    untrained: bool = False

    @property
    def inference_ratio(self) -> float | None:
        """Generation time relative to the plain base, measured in the same run."""
        own, base = self.inference_seconds_per_example, self.base_inference_seconds_per_example
        return own / base if own is not None and base else None

    @property
    def overfits(self) -> bool:
        """Whether the eval loss ended well above its own minimum."""
        losses = [
            point.eval_loss for point in self.curve if point.eval_loss is not None and math.isfinite(point.eval_loss)
        ]
        return bool(losses) and losses[-1] > OVERFIT * min(losses)


class Comparison(BaseModel):
    """A comparison folder, read."""

    header: Header
    runs: list[Run]


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


def load(folder: str | Path) -> Comparison:
    """Read ``comparison.json`` and ``results.jsonl``. A repeated run counts once, by its last line."""
    folder = Path(folder)
    file = folder / "comparison.json"
    if not file.is_file():
        raise GraftuneError(
            "this is not a comparison folder",
            received=folder,
            expected="a folder with comparison.json and results.jsonl",
            do="give the folder that was passed to the comparison as its output",
        )
    try:
        header = Header.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise _unreadable(file, _first(error)) from error
    runs = _runs(folder / "results.jsonl")
    known = {name for run in runs if run.status == "done" for name in run.metrics}
    if known and header.metric not in known:
        raise unknown("metric", header.metric, known)
    return Comparison(header=header, runs=runs)


def _runs(file: Path) -> list[Run]:
    """The runs of a results file; none, if no run has finished yet."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    runs: dict[tuple[str, str, int], Run] = {}
    for number, line in numbered:
        try:
            run = Run.model_validate(json.loads(line))
        except ValidationError as error:
            raise _unreadable(f"{file}, line {number}", _first(error)) from error
        except ValueError as error:
            # A kill leaves half a line at the end. Anywhere else it means that the file was damaged.
            if number == numbered[-1][0]:
                break
            raise _unreadable(f"{file}, line {number}", str(error)) from error
        runs[run.method, run.label, run.seed] = run
    return list(runs.values())


def _first(error: ValidationError) -> str:
    """The first complaint of pydantic, with the place it is about."""
    complaint = error.errors()[0]
    return f"{'.'.join(map(str, complaint['loc'])) or 'the line'}: {complaint['msg']}"


def _unreadable(place: object, why: str) -> GraftuneError:
    return GraftuneError(
        f"cannot read {place}", received=why, expected="what the comparison wrote", do="repair or remove it"
    )


def rows(comparison: Comparison) -> list[MethodRow]:
    """One row per method: the best first, then those without a usable quality, with the reason."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in comparison.runs:
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


def _sign(metric: str) -> int:
    return -1 if metric.lower() in LOWER_IS_BETTER else 1


def _worse_later(metric: str) -> Callable[[MethodRow], float]:
    return lambda row: -_sign(metric) * row.quality.mean if row.quality else math.inf


def _is_close(row: MethodRow, best: MethodRow, share: float = CLOSE) -> bool:
    """Within the larger of both seed spreads, or within a share of the best."""
    assert row.quality is not None
    assert best.quality is not None
    gap = abs(best.quality.mean - row.quality.mean)
    spread = max(row.quality.spread or 0, best.quality.spread or 0)
    return gap <= max(spread, share * abs(best.quality.mean))


def verdict(comparison: Comparison) -> list[str]:
    """What the numbers say, in sentences that claim no more than they do; the first is the headline."""
    every = rows(comparison)
    ranked = [row for row in every if row.ok]
    if not ranked:
        return ["No method has finished with a usable result."]
    best, digits = ranked[0], decimals(every)
    said = [f"Best quality: {best.label}, with {comparison.header.metric} {quality(best.quality, digits)}."]
    if level := [row.label for row in ranked[1:] if _is_close(row, best, share=0)]:
        said.append(f"Level with it, by the spread over seeds: {', '.join(level)}.")
    sized = [row for row in ranked if row.parameters_stored and _is_close(row, best)]
    smallest = min(sized, key=_stored, default=best)
    if _stored(smallest) < _stored(best):
        said.append(
            f"Smallest within the seed spread or 5 % of it: {smallest.label}, "
            f"with {quality(smallest.quality, digits)} and {_size(smallest)}."
        )
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


# --- Numbers as people write them ------------------------------------------------------------------


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


def _scaled(value: float, base: float, units: Sequence[str], gap: str) -> str:
    unit = 0
    while unit < len(units) - 1 and abs(value) >= base * 0.9995:
        value, unit = value / base, unit + 1
    number = f"{value:.0f}" if value >= 99.95 or value == int(value) else f"{value:.3g}"
    return f"{number}{gap if units[unit] else ''}{units[unit]}"


def count(value: float) -> str:
    """``295k`` parameters."""
    return _scaled(value, 1000, ("", "k", "M", "B"), "")


def size_in_bytes(value: float) -> str:
    """``1.13 MiB``."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"), " ")


def duration(seconds: float) -> str:
    """``8.3 s``, ``2 min 05 s``, ``1 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """``0.24 %``."""
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def shown(stat: Stat | None, form: Callable[[float], str]) -> str:
    """The mean in the given form, or a dash where nothing was measured."""
    return form(stat.mean) if stat and math.isfinite(stat.mean) else DASH


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

    def peak(row: MethodRow) -> str:
        return shown(row.peak_memory_bytes, size_in_bytes)

    def inference(row: MethodRow) -> str:
        time = shown(row.inference_seconds_per_example, lambda s: f"{1000 * s:.3g}")
        return f"{time} ({row.inference_ratio.mean:.2f}{TIMES})" if row.inference_ratio else time

    return [
        Column(header.metric, lambda r: quality(r.quality, digits), lambda r: r.quality),
        Column("trained (of base)", trained, lambda r: r.parameters_trained),
        Column("stored", stored, lambda r: r.bytes_stored),
        Column("training", lambda r: shown(r.train_seconds, duration), lambda r: r.train_seconds),
        Column("tokens/s", lambda r: shown(r.tokens_per_second, count), lambda r: r.tokens_per_second),
        Column("peak memory", peak, lambda r: r.peak_memory_bytes),
        Column("ms/example (vs base)", inference, lambda r: r.inference_seconds_per_example),
    ]


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
        caption=Text("\n".join([*verdict(comparison), *notes])),
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
