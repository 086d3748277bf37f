"""A small sentence encoder on many classes, Graftune against HF PEFT with its Trainer: speed and accuracy.

    python benchmarks/encoder_speed.py --base all-MiniLM-L6-v2 --train banking77/train.jsonl \\
        --dev banking77/dev.jsonl --out runs/encoder_speed.csv

LoRA of rank 8 on query and value with a trained classifier, the pooler frozen, no dropout; batches of 32 rows of at
most 64 tokens, the same ids, rows, rate and steps on both sides, each with its own order and padding. Every side is a
process of its own, in turns. Short runs give the time of a step, full ones the accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sides import recipes
from sides.processes import side
from sides.records import Record, Records, numbers, read, where
from sides.tables import difference, facts, markdown, mean_sd, median, ratio

PROGRAMS = ("train_peft", "train_graftune")
PRECISIONS = ("fp32", "bf16")


def measure(records: Records, kind: str, number: int, threads: int, **keys: object) -> None:
    """Both sides in both precisions once, with ``number`` as their seed."""
    for precision in PRECISIONS:
        for program in PROGRAMS:
            found = side(program, recipes.text(precision=precision, seed=number, **keys), threads=threads)
            records.add(
                kind=kind,
                side=program,
                precision=precision,
                round=number,
                seconds=found["seconds"],
                accuracy=found["metrics"]["accuracy"],
                eval_loss=found["metrics"]["loss"],
                loss_first=found["losses"][0],
                loss_last=found["losses"][-1],
                steps=keys["max_steps"],
                lr=keys["lr"],
                seed=number,
                threads=found["threads"],
            )
            accuracy = found["metrics"]["accuracy"]
            typer.echo(f"{kind} {program} {precision}: {found['seconds']:.3f} s, accuracy {accuracy:.4g}", err=True)


def summary(rows: list[Record]) -> str:
    """A line for each precision."""
    lines = []
    for precision in PRECISIONS:
        timed, full = where(rows, kind="time", precision=precision), where(rows, kind="quality", precision=precision)
        theirs, ours = (where(timed, side=program) for program in PROGRAMS)
        seconds = [f"{median(s, 'seconds'):.3f}" for s in (theirs, ours)] if timed else ["-", "-"]
        scores = [numbers(where(full, side=program), "accuracy") for program in PROGRAMS]
        quality = [*(mean_sd(s, 4) for s in scores), difference(scores[1], scores[0])] if full else ["-", "-", "-"]
        lines.append((precision, *seconds, ratio(theirs, ours) if timed else "-", *quality))
    headings = (
        "precision",
        "PEFT s/step",
        "ours s/step",
        "ratio",
        "PEFT accuracy",
        "ours accuracy",
        "difference in sd",
    )
    return f"{markdown(headings, lines)}\n\n{facts(rows)}"


def main(
    base: Annotated[Path, typer.Option(help="Folder of all-MiniLM-L6-v2.")],
    train: Annotated[Path, typer.Option(help="banking77's train.jsonl.")],
    dev: Annotated[Path, typer.Option(help="banking77's dev.jsonl.")],
    out: Annotated[Path, typer.Option(help="The csv to write.")],
    steps: Annotated[int, typer.Option(min=recipes.MIN_STEPS, help="Steps of a full run.")] = 560,
    timed: Annotated[int, typer.Option(min=recipes.MIN_STEPS, help="Steps of a timed run, with the warm-up.")] = 40,
    rounds: Annotated[int, typer.Option(min=0, help="Timed runs of each side, in turns.")] = 3,
    seeds: Annotated[int, typer.Option(min=0, help="Full runs of each side, each with a seed of its own.")] = 3,
    lr: Annotated[float, typer.Option(help="Peak learning rate, Graftune's for LoRA at this width.")] = 2.8e-3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every side.")] = 2,
) -> None:
    """Measure, write the csv and print it as a table."""
    records = Records(out)
    keys = {
        "base": base,
        "task": "classify",
        "train": train,
        "eval": dev,
        "input": "text",
        "target": "label",
        "batch_size": 32,
        "max_length": 64,
        "lr": lr,
        "lora": recipes.lora("query", "value"),
    }
    for number in range(rounds):
        measure(records, "time", number, threads, max_steps=timed, **keys)
    for number in range(seeds):
        measure(records, "quality", number, threads, max_steps=steps, **keys)
    typer.echo(summary(read(out)))


if __name__ == "__main__":
    typer.run(main)
