"""Orders of methods side by side: at their best rates, at their usual ones, as it was before, and by PEFT's own way.

    python benchmarks/orders.py banking77 accuracy

In docs/results it reads NAME.csv, NAME-usual.csv and, where they are, NAME-before.csv and NAME-peft.csv, and writes
NAME-orders.md. All but the last are of `tools/publish.py`, that one of `peft_way.py`. The regret of a method is what
its best rate has over its usual one: what a user loses who tunes nothing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer
from sides.records import Record, read
from sides.tables import markdown, mean_sd

CLEAR = 0.01  # of the metric's scale: closer ones have no order

Scores = Mapping[str, list[float]]


def scores(file: Path, metric: str) -> dict[str, list[float]]:
    """The metric of each method's reported runs."""
    found: dict[str, list[float]] = {}
    for row in read(file):
        if row.get("stage", "report") == "report" and row["status"] == "done" and not row.get("rows"):
            found.setdefault(row.get("label") or row["method"], []).append(_value(row, metric))
    return found


def _value(row: Record, metric: str) -> float:
    return float(json.loads(row["metrics"])[metric] if "metrics" in row else row[metric])


def rates(file: Path) -> dict[str, str]:
    """The rate of each method's reported runs."""
    return {row["label"]: f"{float(row['rate']):.2g}" for row in read(file) if row["stage"] == "report" and row["rate"]}


def agreement(truth: Mapping[str, float], other: Mapping[str, float], clear: float) -> tuple[int, int, int]:
    """Of the pairs of methods further apart than `clear`: how many have this order elsewhere, how many of these are as
    far apart there too, and the number of pairs."""
    both = [name for name in truth if name in other]
    pairs = [(a, b) for a, b in combinations(both, 2) if abs(truth[a] - truth[b]) > clear]
    right = [(a, b) for a, b in pairs if (truth[a] - truth[b]) * (other[a] - other[b]) > 0]
    return len(right), sum(abs(other[a] - other[b]) > clear for a, b in right), len(pairs)


def main(
    name: Annotated[str, typer.Argument(help="Of the data set.")],
    metric: Annotated[str, typer.Argument(help="By which the methods are ordered.")],
    folder: Annotated[Path, typer.Option(help="Where the csv files are.")] = Path("docs/results"),
) -> None:
    """Write the table, and what is seen in it."""
    best, usual, before, peft = (folder / f"{name}{end}.csv" for end in ("", "-usual", "-before", "-peft"))
    at_best, at_usual = scores(best, metric), scores(usual, metric)
    mean = {name: statistics.fmean(values) for name, values in at_best.items()}
    points = 100 if max(mean.values()) <= 1 else 1
    digits = 3 if points == 100 else 1
    others = {"the old rates": before, "PEFT's way": peft}
    beside = {words: scores(file, metric) for words, file in others.items() if file.exists()}
    chosen, taken = rates(best), rates(usual)
    lines, regrets = [], {}
    for place, label in enumerate(sorted(mean, key=lambda label: -mean[label]), 1):
        own = at_usual.get(label)
        if own and label in chosen:
            regrets[label] = points * (mean[label] - statistics.fmean(own))
        cells = [f"{place}. {label}", mean_sd(at_best[label], digits), chosen.get(label, "")]
        cells += [mean_sd(own, digits) if own else "", taken.get(label, "")]
        cells.append(f"{regrets[label]:.1f}" if label in regrets else "")
        lines.append([*cells, *(_ranked(found, label, digits) for found in beside.values())])
    headings = ["method", f"{metric} at the best rate", "rate", "at the usual rate", "rate", "regret, points", *beside]
    worst = max(regrets, key=lambda label: regrets[label])
    median = f"median {statistics.median(regrets.values()):.1f} points, largest {regrets[worst]:.1f} ({worst})"
    said = [f"Regret of the usual rates: {median}."]
    if half := [label for label in regrets if statistics.fmean(at_usual[label]) < mean[label] / 2]:
        said.append(f"Below half of its best at the usual rate: {', '.join(half)}.")
    for words, found in {"the usual rates": at_usual, **beside}.items():
        means = {label: statistics.fmean(values) for label, values in found.items()}
        right, clear, of = agreement(mean, means, CLEAR * (1 if points == 100 else 100))
        said.append(
            f"Of {of} pairs of methods more than a point apart, {right} have this order by {words}, {clear} of them by "
            "more than a point there too."
        )
    about = "Mean ± deviation over seeds; in the last columns the place, then the score."
    text = "\n".join([markdown(headings, lines), "", about, "", *(f"- {one}" for one in said), ""])
    (folder / f"{name}-orders.md").write_text(text, encoding="utf-8")
    typer.echo(text)


def _ranked(found: Scores, label: str, digits: int) -> str:
    """The place of a method among others, and its score."""
    if label not in found:
        return ""
    means = {other: statistics.fmean(values) for other, values in found.items()}
    place = sorted(means, key=lambda other: -means[other]).index(label) + 1
    return f"{place}. {means[label]:.{digits}f}"


if __name__ == "__main__":
    typer.run(main)
