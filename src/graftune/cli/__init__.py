"""The command line: parses, calls the library, prints. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys

import typer

from graftune.cli import commands, comparing
from graftune.errors import GraftuneError

INTERRUPTED = 130  # what Typer makes of Ctrl-C

app = typer.Typer(
    name="graftune",
    help="Parameter-efficient fine-tuning: train one method, or compare them all on your data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(commands.train)
app.command()(comparing.compare)
app.command()(comparing.report)
app.command()(commands.evaluate)
app.command()(commands.generate)
app.command()(commands.inspect)


def main() -> None:
    """Run a command. Exit codes: 0 done, 2 something the user can mend (or Ctrl-C), 1 a fault of ours."""
    try:
        app()
    except GraftuneError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(2)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        typer.secho(
            "stopped by Ctrl-C; what was finished is kept. To go on, run it again (train: with --resume)",
            err=True,
            fg="yellow",
        )
        sys.exit(2)
    except Exception as error:
        if os.environ.get("GRAFTUNE_TRACEBACK"):
            raise
        typer.secho(
            f"internal error: {type(error).__name__}: {error}\n"
            "  what to do: this is a fault of graftune; run again with GRAFTUNE_TRACEBACK=1 and report it",
            err=True,
            fg="red",
        )
        sys.exit(1)
