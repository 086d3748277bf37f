"""The commands `compare` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftune.cli.commands import use_threads
from graftune.cli.flags import with_keys
from graftune.config.recipe import Recipe


@with_keys("compare")
def compare(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="Folder of the run.", metavar="DIR")] = Path("runs/compare"),
    watch: Annotated[bool, typer.Option("--watch", help="Serve the report while it grows, to this machine.")] = False,
) -> None:
    """Compare methods at their best learning rates on your data; write a table and report.html.

    Rates and stopping points are chosen on rows held out of the training data; --eval is only read for what is
    reported. Started again, it continues.
    """
    from rich.console import Console

    from graftune.cli import live
    from graftune.comparison.compare import compare as run

    use_threads(recipe)
    with live.line() as line, live.page(out, watch) as told:
        shown = run(recipe.base, out=out, recipe=recipe, watch=live.both(line.event, told), say=live.say)
    if live.SPEAKS:
        Console(width=None if live.console.is_terminal else 160).print(shown)
        typer.echo(f"report: {out / 'report.html'}")


def report(run: Annotated[Path, typer.Argument(help="The folder of a comparison.", metavar="RUN")]) -> None:
    """Make the table and the report of a comparison again, from its results."""
    from graftune.comparison.report import write

    for file in write(run):
        typer.echo(file)
