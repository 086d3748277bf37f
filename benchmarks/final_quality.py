"""What training comes to, Graftune against HF PEFT with its Trainer, on the two shipped bases.

    python benchmarks/final_quality.py --data DATA --out runs/final_quality.csv

LoRA of rank 8 by the recipes ``tiny_decoder_e2e.yaml`` and ``tiny_encoder_pros_cons.yaml``: the same rows, rate,
schedule and clipping, each side with its own order of the rows. PEFT trains in fp32; its saved folder, head included,
is read back and evaluated by Graftune on an fp32 base. Graftune trains and evaluates in fp32 and in its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from sides import recipes
from sides.processes import HERE, side
from sides.records import Record, Records, numbers, read, where
from sides.tables import difference, facts, markdown, mean_sd

SIDES = (("train_peft", "fp32"), ("train_graftune", "fp32"), ("train_graftune", "auto"))
#: recipe -> folder of its data, modules that LoRA changes, metric, decimals of it
JOBS: dict[str, tuple[str, tuple[str, ...], str, int]] = {
    "tiny_decoder_e2e": ("e2e", ("q_proj", "v_proj"), "bleu", 2),
    "tiny_encoder_pros_cons": ("pros_cons", ("Wqkv",), "accuracy", 4),
}


def keys_of(job: str, data: Path) -> dict[str, Any]:
    """The recipe of a job, with its data and its LoRA."""
    folder, targets, *_ = JOBS[job]
    recipe = yaml.safe_load((HERE / f"{job}.yaml").read_text(encoding="utf-8"))
    files = {"train": data / folder / "train.jsonl", "eval": data / folder / "dev.jsonl"}
    return {**recipe, **files, "lora": recipes.lora(*targets)}


def measure(records: Records, job: str, seed: int, threads: int, keys: dict[str, Any]) -> None:
    """Each side once."""
    metric = JOBS[job][2]
    for program, precision in SIDES:
        found = side(program, recipes.text(**keys, precision=precision, seed=seed), threads=threads)
        records.add(
            job=job,
            side=program,
            precision=precision,
            seed=seed,
            metric=metric,
            value=found["metrics"][metric],
            eval_loss=found["metrics"]["loss"],
            seconds=found["seconds"],
            loss_first=found["losses"][0],
            loss_last=found["losses"][-1],
            steps=keys["max_steps"],
            lr=keys["lr"],
            threads=found["threads"],
        )
        typer.echo(f"{job} {program} {precision}: {metric} {found['metrics'][metric]:.4g}", err=True)


def summary(rows: list[Record]) -> str:
    """A line for each of our precisions, beside PEFT's; once by the metric and once by the loss."""
    lines = []
    for job in dict.fromkeys(row["job"] for row in rows):
        by = [where(rows, job=job, side=program, precision=precision) for program, precision in SIDES]
        for (_, precision), ours in zip(SIDES[1:], by[1:], strict=True):
            for column, name, digits in (("value", *JOBS[job][2:]), ("eval_loss", "eval loss", 4)):
                own, theirs = numbers(ours, column), numbers(by[0], column)
                figures = mean_sd(theirs, digits), mean_sd(own, digits), difference(own, theirs)
                lines.append((job, name, precision, *figures))
    headings = ("job", "metric", "our precision", "PEFT fp32", "ours", "difference in sd")
    return f"{markdown(headings, lines)}\n\n{facts(rows)}"


def main(
    data: Annotated[Path, typer.Option(help="Folder with e2e and pros_cons.")],
    out: Annotated[Path, typer.Option(help="The csv to write.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each side.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    steps: Annotated[int | None, typer.Option(min=recipes.MIN_STEPS, help="Instead of the recipes' own.")] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate, Graftune's for LoRA at this width.")] = 3.5e-3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every side.")] = 2,
) -> None:
    """Measure, write the csv and print it as a table."""
    records = Records(out)
    for seed in range(first_seed, first_seed + seeds):
        for job in JOBS:
            keys = keys_of(job, data)
            measure(records, job, seed, threads, {**keys, "lr": lr, "max_steps": steps or keys["max_steps"]})
    typer.echo(summary(read(out)))


if __name__ == "__main__":
    typer.run(main)
