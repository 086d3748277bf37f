"""The results of a comparison as one HTML file that needs nothing else, and both written into its folder."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from graftune import files
from graftune.comparison import plots, rate_plots, row_plots, sentences, summary, table, units
from graftune.comparison.lines import Run
from graftune.comparison.results import Comparison, load, slug
from graftune.comparison.summary import MethodRow, Stat, rows

INPUTS: Final = 3  # how many generated examples are shown


def html(comparison: Comparison, live: bool = False) -> str:
    """The report: one HTML page with its style, script and plots inside; a live one asks its server for news."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = rows(comparison)
    header = comparison.header
    digits = summary.decimals(every)
    others = list(dict.fromkeys(name for row in every for name in row.metrics if name != header.metric))
    columns = table.columns(comparison)
    sizes = [1024**power for power in range(1, 5)]
    extra = [_metric_column(name, every) for name in others]
    measured = {name for run in comparison.runs for name in run.forgetting}
    change = next((name for name in _CHANGES if name in measured), "kl_task")

    def _change(row: MethodRow) -> Stat | None:
        return row.forgetting.get(change)

    present = {plots.family(row.method) for row in every if row.done and not row.untrained}
    return environment.get_template("report.html.j2").render(
        live=live,
        header=header,
        created=header.created.replace("T", " ")[:16],
        base_parameters=units.count(header.base_parameters),
        base_size=units.size_in_bytes(header.base_bytes),
        verdict=sentences.verdict(comparison),
        warnings=sentences.warnings(comparison),
        columns=[*columns[:1], *extra, *columns[1:]],
        rows=every,
        split=_split,
        number=_number,
        family=plots.family,
        families=[(name, text) for name, (text, _, _) in plots.FAMILIES.items() if name in present],
        plots=[
            plots.scatter("stored", every, header.metric, digits, "parameters stored", _stored, units.count, log=True),
            plots.scatter("time", every, header.metric, digits, "training time", _time, units.duration, (60, 3600)),
            plots.scatter("energy", every, header.metric, digits, "energy of training", _joules, units.energy),
            plots.scatter("forgetting", every, header.metric, digits, _CHANGES[change], _change, "{:.2g}".format),
            plots.scatter("memory", every, header.metric, digits, "peak memory", _memory, units.size_in_bytes, sizes),
        ],
        curves=plots.curves(every),
        rates=rate_plots.rates(comparison),
        changes=rate_plots.changes(comparison, change),
        changed=_CHANGES[change],
        by_rows=row_plots.curves(comparison),
        chosen_by="the loss" if comparison.writes else header.metric,
        trials=[_trial(run) for run in comparison.runs],
        command=_command(comparison, every),
        energy_source=next((run.energy_source for run in comparison.reported if run.energy_source), ""),
        spent=_spent(comparison),
        examples=_examples(every),
    )


def write(folder: str | Path) -> list[Path]:
    """Write ``table.md`` and ``report.html`` for what the folder holds so far, and return their paths."""
    comparison = load(folder)
    contents = {"table.md": table.markdown(comparison), "report.html": html(comparison)}
    for name, content in contents.items():
        files.write_text(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]


# --- The table and the examples --------------------------------------------------------------------


def _metric_column(name: str, every: Sequence[MethodRow]) -> table.Column:
    digits = 1 if any(abs(row.metrics[name].mean) >= 5 for row in every if name in row.metrics) else 3
    return table.Column(
        name, lambda row: summary.quality(row.metrics.get(name), digits), lambda row: row.metrics.get(name)
    )


def _split(cell: str) -> tuple[str, str]:
    """A cell's main number and its small print: ``35.0 ± 0.5`` is ``35.0`` and ``± 0.5``."""
    found = re.search(r" ± | \(|, ", cell)
    if not found:
        return cell, ""
    small = cell[found.start() :].strip(" ,")
    return cell[: found.start()], small[1:-1] if small.startswith("(") else small


def _number(stat: Stat | None) -> str:
    """What a column sorts by; empty values stay at the end."""
    return repr(stat.mean) if stat and math.isfinite(stat.mean) else ""


def _examples(every: Sequence[MethodRow]) -> list[dict[str, Any]]:
    """For the first inputs: the references and what each method's first seed made of them."""
    found: dict[str, dict[str, Any]] = {}
    for row in every:
        for example in min(row.done, key=lambda run: run.seed).examples if row.done else ():
            entry = found.setdefault(example.input, {"references": example.references, "outputs": []})
            entry["outputs"].append((row, example.prediction))
    return [{"input": text, **entry} for text, entry in list(found.items())[:INPUTS]]


def _stored(row: MethodRow) -> Stat | None:
    return row.parameters_stored


def _time(row: MethodRow) -> Stat | None:
    return row.train_seconds


def _memory(row: MethodRow) -> Stat | None:
    return row.peak_memory_bytes


def _joules(row: MethodRow) -> Stat | None:
    return row.joules


#: What is called forgetting, the first that was measured: by what the base can be asked.
_CHANGES: Final = {
    "kl_task": "forgetting: KL to the base, nats per token",
    "drift": "drift of the hidden states, 1 - cosine",
}


def _trial(run: Run) -> dict[str, str]:
    """A trial as a line of the table of all."""
    score = run.metrics.get("loss") if run.score is None else run.score
    return {
        "stage": run.stage,
        "label": run.label,
        "seed": str(run.seed),
        "rate": "" if run.rate is None else f"{run.rate:.2g}",
        "steps": "" if run.steps is None else str(run.steps),
        "score": run.error.splitlines()[0] if run.error else "" if score is None else f"{score:.4g}",
        "time": "" if run.train_seconds is None else units.duration(run.train_seconds),
    }


def _command(comparison: Comparison, every: Sequence[MethodRow]) -> str:
    """How the best trained candidate is used: its first seed's adapter."""
    best = next((row for row in every if row.ok and not row.untrained), None)
    if best is None:
        return ""
    seed = min(run.seed for run in best.done)
    place = comparison.folder / "adapters" / f"{slug(best.label)}-seed{seed}"
    return f'graftune generate --adapter {shlex.quote(str(place))} --text "…"'


def _spent(comparison: Comparison) -> str:
    """What all trials have taken, the search included."""
    seconds = sum(run.train_seconds or 0 for run in comparison.runs)
    joules = sum(run.joules or 0 for run in comparison.runs)
    return f"{len(comparison.runs)} trials, {units.duration(seconds)} of training, {units.energy(joules)}"
