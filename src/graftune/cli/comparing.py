"""The commands `compare` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from graftune.cli import options as o
from graftune.cli.commands import use_threads

Effort = Literal["none", "quick", "normal", "thorough"]


def compare(
    methods: Annotated[
        str | None,
        typer.Option(help="Methods with commas between, also with options: lora,lora(rank=64).", metavar="A,B,C"),
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(help="How much is spent on finding rates (default: normal; quick on sample data)."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Reported seeds (default: 1 quick, 3 normal, 6 thorough).")
    ] = None,
    known: Annotated[
        list[str] | None, typer.Option(help="A rate that is not searched for.", metavar="METHOD.lr=RATE")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="What you can afford: stored=1MB, memory=2GB or ms=20.", metavar="KIND=SIZE"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Numbers of training rows for curves over them.", metavar="50,200,all")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of groups, some of which are never trained on.", metavar="COLUMN")
    ] = None,
    test: Annotated[str | None, typer.Option(help="One more file to report on.", metavar="FILE")] = None,
    neutral: Annotated[
        str | None,
        typer.Option(help="Text file of passages to measure forgetting on (default: the package's).", metavar="FILE"),
    ] = None,
    workers: Annotated[str | None, typer.Option(help="Trials at a time, or ray (default: 1).", metavar="N|ray")] = None,
    out: o.Out = Path("runs/compare"),
    base: o.Base = None,
    task: o.Task = None,
    train: o.Train = None,
    eval: o.Eval = None,
    input: o.Input = None,
    target: o.Target = None,
    batch_size: o.BatchSize = None,
    max_steps: o.MaxSteps = None,
    epochs: o.Epochs = None,
    lr: o.Rate = None,
    seed: o.Seed = None,
    precision: o.Precision = None,
    train_rows: o.TrainRows = None,
    eval_rows: o.EvalRows = None,
    settings: o.Settings = None,
    recipe: o.RecipeFile = None,
) -> None:
    """Compare methods at their best learning rates on your data; write a table and report.html.

    Rates and stopping points are chosen on rows held out of the training data; --eval is only read for what is
    reported. Started again, it continues.
    """
    from graftune.comparison.candidates import pairs, split

    names = None if methods is None else split(methods)
    flags = {
        "effort": effort, "known": pairs("known", known), "limit": pairs("limit", limit), "group": group, "test": test,
        "neutral": neutral, "rows": None if rows is None else split(rows), "workers": workers,
        "methods": names, "seeds": seeds, "base": base, "task": task, "train": train, "eval": eval,
        "input": input, "target": target, "batch_size": batch_size, "max_steps": max_steps, "epochs": epochs,
        "lr": lr, "seed": seed, "precision": precision, "train_rows": train_rows, "eval_rows": eval_rows,
    }  # fmt: skip
    from graftune.training import recipe as recipes

    resolved = recipes.load(recipe, flags, tuple(settings or ()))
    from rich.console import Console

    from graftune.cli import live
    from graftune.comparison.compare import compare as run

    use_threads(resolved)
    with live.line() as line:
        shown = run(resolved.base, out=out, recipe=resolved, watch=line.event, say=live.say)
    if live.SPEAKS:
        Console(width=None if live.console.is_terminal else 160).print(shown)
        typer.echo(f"report: {out / 'report.html'}")


def report(run: Annotated[Path, typer.Argument(help="The folder of a comparison.", metavar="RUN")]) -> None:
    """Make the table and the report of a comparison again, from its results."""
    from graftune.comparison.report import write

    for file in write(run):
        typer.echo(file)
