"""Copy the results of a comparison into the documentation: a Markdown table and a csv with every run.

    python tools/publish.py runs/e2e docs/results/e2e

No figure in docs/results is typed by hand.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from graftune.comparison import results, table

COLUMNS = (
    "parameters_trained",
    "parameters_stored",
    "bytes_stored",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "cpu_seconds",
    "joules",
    "joules_per_answer",
    "latency",
    "latency_ratio",
    "batched",
    "batched_ratio",
    "merged_ratio",
)


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    target: Annotated[Path, typer.Argument(help="Where to write, without extension.")],
) -> None:
    """Write TARGET.md and TARGET.csv."""
    comparison = results.load(run)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".md").write_text(table.markdown(comparison), encoding="utf-8")
    metrics = sorted({name for r in comparison.runs for name in r.metrics})
    with target.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["stage", "label", "method", "seed", "rate", "head_rate", "rows", "status", "score", *metrics, *COLUMNS]
        )
        for r in comparison.runs:
            values = [r.metrics.get(name, "") for name in metrics]
            named = [r.stage, r.label, r.method, r.seed, r.rate, r.head_rate, r.rows, r.status, r.score]
            writer.writerow([*named, *values, *(getattr(r, c) for c in COLUMNS)])


if __name__ == "__main__":
    typer.run(main)
