"""HF PEFT's own way on a data set: each of its methods as it comes, at one rate (1e-4) with one seed, by its Trainer.

    python benchmarks/peft_way.py --recipe benchmarks/banking77.yaml --base BASE --train T --eval E --out OUT.csv

The rows, the steps and the metric are those of the recipe. What PEFT cannot do on this base is a line with its reason.
`orders.py` puts the result beside a comparison under our protocol.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from sides.processes import side
from sides.records import Records

METHODS = ("full", "lora", "dora", "ia3", "p-tuning-v2", "prefix", "prompt", "p-tuning")
KEYS = ("task", "input", "target", "train_rows", "eval_rows", "batch_size", "max_steps", "max_length")
RATE = 1e-4


def main(
    recipe: Annotated[Path, typer.Option(help="The recipe of the comparison.")],
    base: Annotated[str, typer.Option(help="The base.")],
    train: Annotated[Path, typer.Option(help="Training rows.")],
    eval: Annotated[Path, typer.Option(help="Evaluation rows.")],
    out: Annotated[Path, typer.Option(help="The csv to write.")],
    eval_rows: Annotated[int | None, typer.Option(help="So many evaluation rows.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Train and evaluate each method."""
    given: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    keys = {key: value for key, value in given.items() if key in (*KEYS, given["task"])}
    keys |= {"base": base, "train": str(train), "eval": str(eval), "lr": RATE, "seed": 0}
    if eval_rows is not None:
        keys["eval_rows"] = eval_rows
    records = Records(out)
    for method in METHODS:
        found: dict[str, Any] = {"metrics": {}, "losses": [float("nan")]}
        error = ""
        try:
            found = side("train_way", method, json.dumps(keys), threads=threads)
        except RuntimeError as failure:
            error = str(failure).strip().splitlines()[-1]
        records.add(
            method=method, seed=0, rate=RATE, status="failed" if error else "done", error=error,
            metrics=json.dumps(found["metrics"]), loss_first=found["losses"][0], loss_last=found["losses"][-1],
            threads=threads,
        )  # fmt: skip
        typer.echo(f"{method}: {error or found['metrics']}", err=True)


if __name__ == "__main__":
    typer.run(main)
