"""Claims of the papers on small bases, each as a sweep of runs that differ in one thing:

    python benchmarks/paper_claims.py words --data DATA --out runs/claims/words.csv

DATA has the folders e2e, pros_cons and ncbi_disease with train.jsonl and dev.jsonl. Every variation runs with every
seed on the same evaluation rows; the training rows are drawn by the seed. Whether a claim holds is read off the table.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from sides.records import Record, Records, numbers, read, where
from sides.tables import facts, markdown, mean_sd

from graftune.methods.method import make
from graftune.training.run import train

Variations = Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class Claim:
    """What a paper says, the data and figure it is looked at with, and label -> (method, its options, recipe keys)."""

    says: str
    data: str
    metric: str
    recipe: Mapping[str, Any]
    variations: Variations


TABLES = {"base": "tiny-decoder", "task": "generate", "batch_size": 16, "eval_rows": 60}
PHRASES = {"base": "tiny-encoder", "task": "classify", "batch_size": 32, "eval_rows": 1000}
#: Words of the task, and as many that have nothing to do with it.
TASK_WORDS = "table of a restaurant: name, food, price, area, rating, near. In one sentence:"
OTHER_WORDS = "winter of an engine: stone, milk, seven, door, slowly, upon. By some mountain:"

CLAIMS: dict[str, Claim] = {
    "prefix": Claim(
        "Rows in every attention beat rows in the embeddings alone, and more rows do not help the latter "
        "(Li and Liang 2021, table 4)",
        "e2e",
        "bleu",
        {**TABLES, "train_rows": 2000, "eval_rows": 30, "max_steps": 80},
        {f"{name} {n}": (name, {"length": n}, {}) for name in ("prompt", "prefix") for n in (5, 20)},
    ),
    "length": Claim(
        "Quality rises with the number of rows, then falls, while the training loss goes on falling "
        "(Li and Liang 2021, figure 4)",
        "pros_cons",
        "accuracy",
        {**PHRASES, "train_rows": 500, "max_steps": 150},
        {f"{n:3} rows": ("p-tuning-v2", {"length": n}, {}) for n in (1, 5, 10, 20, 50, 100)},
    ),
    "words": Claim(
        "With little data a prefix that starts from words beats a random one, words of the task the most "
        "(Li and Liang 2021, figure 5)",
        "e2e",
        "bleu",
        {**TABLES, "eval_rows": 20, "max_steps": 40},
        {
            f"{start}, {rows:3} training rows": ("prefix", {"reparameterize": False, **text}, {"train_rows": rows})
            for rows in (50, 200)
            for start, text in (
                ("random", {"length": 20}),
                ("other words", {"text": OTHER_WORDS}),
                ("words of the task", {"text": TASK_WORDS}),
            )
        },
    ),
    "size": Claim(
        "Adapters from 8 to 256 are of one quality (Houlsby et al. 2019, section 3.6)",
        "pros_cons",
        "accuracy",
        {**PHRASES, "train_rows": 5000, "max_steps": 200},
        {f"bottleneck {m:3}": ("houlsby", {"bottleneck": m}, {}) for m in (2, 8, 32, 128)},
    ),
}


def measure(claim: Claim, label: str, seed: int, data: Path) -> dict[str, Any]:
    """One run: its figures."""
    preset, options, keys = claim.variations[label]
    recipe: dict[str, Any] = {
        **claim.recipe,
        "train": str(data / claim.data / "train.jsonl"),
        "eval": str(data / claim.data / "dev.jsonl"),
        "seed": seed,
        **keys,
    }
    recipe = {**recipe, "eval_every": max(1, recipe["max_steps"] // 10)}
    base = recipe.pop("base")
    with tempfile.TemporaryDirectory() as folder:
        run = train(base, make(preset, **options), out=Path(folder) / "run", **recipe)
    losses = [point["loss"] for point in run.progress.curve]
    return {
        claim.metric: run.metrics[claim.metric],
        "eval_loss": run.metrics["loss"],
        "train_loss": statistics.mean(losses[-10:]),
        "lowest_eval_loss": min(p["eval_loss"] for p in run.progress.curve if p["eval_loss"] is not None),
        "stored": run.count.stored,
        "seconds": run.progress.seconds,
    }


def summary(claim: Claim, rows: list[Record]) -> str:
    """A line for each variation, with means and deviations over its seeds."""
    digits = 1 if claim.metric == "bleu" else 3
    lines = []
    for label in claim.variations:
        own = where(rows, variation=label)
        figures = [mean_sd(numbers(own, claim.metric), digits)]
        figures += [mean_sd(numbers(own, name), 3) for name in ("eval_loss", "lowest_eval_loss", "train_loss")]
        lines.append((label.strip(), *figures, own[0]["stored"]))
    headings = ("variation", claim.metric, "eval loss", "lowest on 64 eval rows", "training loss", "stored")
    seeds = sorted({row["seed"] for row in rows})
    keys = ", ".join(f"{key} {value}" for key, value in claim.recipe.items())
    return (
        f"## {claim.says}\n\n{markdown(headings, lines)}\n\n"
        f"{claim.data}: {keys}; seeds {', '.join(seeds)}, mean ± deviation; {facts(rows)}\n"
    )


def main(
    name: Annotated[str, typer.Argument(help=", ".join(CLAIMS))],
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="The csv to write; the table stands beside it.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variation.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Run every variation, write the csv and the table."""
    torch.set_num_threads(threads)
    claim = CLAIMS[name]
    records = Records(out)
    for seed in range(seeds):
        for label in claim.variations:
            figures = measure(claim, label, seed, data)
            records.add(claim=name, variation=label, seed=seed, **figures, threads=threads)
            typer.echo(f"{label}, seed {seed}: {claim.metric} {figures[claim.metric]:.4g}", err=True)
    out.with_suffix(".md").write_text(summary(claim, read(out)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
