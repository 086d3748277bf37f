"""The flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Base = Annotated[
    str | None, typer.Option(help="A Transformers folder, a Hub name, or a shipped base.", metavar="DIR|NAME")
]
Task = Annotated[
    str | None,
    typer.Option(
        help="generate (default), translate, summarize, instruct, classify, multi-label, cloze, tag, extract, "
        "regress, image-classify or detect."
    ),
]
Train = Annotated[
    str | None,
    typer.Option(
        help="Training data: a file or folder in any usual format, or a Hub data set name[@config][:split].",
        metavar="FILE",
    ),
]
Eval = Annotated[
    str | None,
    typer.Option(help="Evaluation data, or a share of the training rows (default: 0.1).", metavar="FILE|SHARE"),
]
Input = Annotated[str | None, typer.Option(help="Column with the inputs (guessed if not given).", metavar="COLUMN")]
Target = Annotated[str | None, typer.Option(help="Column with the targets (guessed if not given).", metavar="COLUMN")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Rows a step.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Length of training in steps.")]
Epochs = Annotated[float | None, typer.Option(help="Length of training in passes over the data.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate (default: the method's usual one).")]
Seed = Annotated[int | None, typer.Option(help="Seed of data order and start values.")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or auto.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.", metavar="DIR")]
Result = Annotated[Path | None, typer.Option("--out", help="Write the result as JSON here.", metavar="FILE")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any recipe key, or method.key.", metavar="KEY=VALUE")
]
RecipeFile = Annotated[str | None, typer.Option("--recipe", help="A YAML recipe.", metavar="FILE")]
Adapter = Annotated[str | None, typer.Option(help="A run, or the folder of an adapter.", metavar="DIR")]
TrainRows = Annotated[int | None, typer.Option(min=1, help="Use only so many training rows.")]
EvalRows = Annotated[int | None, typer.Option(min=1, help="Use only so many evaluation inputs.")]
