"""The commands. Each one parses, calls the library and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftune.cli.flags import with_keys
from graftune.config.recipe import Recipe
from graftune.errors import GraftuneError

if TYPE_CHECKING:
    from graftune.inference.predictor import Predictor


Adapter = Annotated[str | None, typer.Option(help="A run, or the folder of an adapter.", metavar="DIR")]
Result = Annotated[Path | None, typer.Option("--out", help="Write the result as JSON here.", metavar="FILE")]


def use_threads(recipe: Recipe) -> None:
    """Compute with as many threads as a recipe says."""
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)


def _check_out(out: Path | None) -> None:
    """Raise GraftuneError for a result that could not be written, before anything is computed."""
    if out is not None:
        from graftune.files import check_place

        check_place(out)


def _answer(out: Path | None, data: dict[str, Any], text: str) -> None:
    """The result on stdout, and as JSON where asked."""
    if out is not None:
        from graftune.files import write_json

        write_json(out, data)
    typer.echo(text)


def _predictor(adapter: str | None, recipe: Recipe, data: str | None = None) -> Predictor:
    """The adapter as its run used it, but for what flags or recipe say; without one, what ``data`` shows."""
    from graftune.inference.predictor import Predictor

    use_threads(recipe)
    own = recipe.model_fields_set & {"base", "task", "precision", "quantize"}
    given: dict[str, Any] = {key: getattr(recipe, key) for key in own}
    return Predictor.load(adapter, **given, options=recipe.sections, data=data)


def _metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


@with_keys("train", method="lora")
def train(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="Folder of the run.", metavar="DIR")] = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train one method; the adapter is kept in OUT/adapter."""
    from graftune.methods.method import make

    name = str(recipe.method)
    built = make(name, **recipe.section(name))
    from graftune.cli import live
    from graftune.training.run import train as run

    use_threads(recipe)
    with live.line() as line:
        result = run(recipe.base, built, out=out, recipe=recipe, resume=resume, watch=line.report, say=live.say)
    if live.SPEAKS:
        typer.echo(
            f"{name}: {_metrics(result.metrics)}\n"
            f"trained {result.count.trained:,} parameters, stored {result.count.stored:,}\n"
            f"adapter: {out / 'adapter'}"
        )


@with_keys("evaluate", eval="Evaluation data.")
def evaluate(recipe: Recipe, adapter: Adapter = None, out: Result = None) -> None:
    """Metrics and predictions of an adapter (or of the plain base) on a data set."""
    if recipe.eval is None:
        raise GraftuneError(
            "evaluate needs data", received="no --eval", expected="a file, a folder or a Hub data set",
            do="give --eval FILE",
        )  # fmt: skip
    _check_out(out)
    from graftune.cli import live
    from graftune.training.tables import announce_table, read_eval

    predictor = _predictor(adapter, recipe, recipe.eval)
    table = read_eval(recipe, predictor.task.task)
    announce_table(table, predictor.task.task, live.say)
    result = predictor.evaluate(table, 2 * recipe.batch_size)
    if "generation" in result.notes:
        live.say(f"generation {result.notes['generation']}")
    data = {"metrics": result.metrics, "notes": result.notes, "predictions": result.predictions}
    _answer(out, data, _metrics(result.metrics))


@with_keys("generate")
def generate(
    recipe: Recipe,
    adapter: Adapter = None,
    text: Annotated[list[str] | None, typer.Option(help="An input; may be given several times.")] = None,
    eval: Annotated[str | None, typer.Option(help="Data whose inputs to answer.", metavar="FILE")] = None,
    out: Result = None,
) -> None:
    """Answers of an adapter (or of the plain base) to texts, or to the inputs of a file."""
    if (text is None) == (eval is None):
        raise GraftuneError(
            "generate needs inputs", received="--text and --eval" if text else "neither --text nor --eval",
            expected="one of them", do='give --text "…" or --eval FILE',
        )  # fmt: skip
    if text is not None and not all(words.strip() for words in text):
        raise GraftuneError(
            "an input is empty", received='--text ""', expected="some words in every --text", do="leave it out"
        )
    _check_out(out)
    from graftune.datasets.rows import read_inputs, rows_of

    predictor = _predictor(adapter, recipe)
    columns = predictor.task.task.columns
    rows = read_inputs(str(eval), recipe.input, columns) if text is None else rows_of(text, columns)
    answers = predictor(rows, 2 * recipe.batch_size)
    shown = [predictor.task.display(row) for row in rows]
    pairs = [{"input": i, "output": a} for i, a in zip(shown, answers, strict=True)]
    _answer(out, {"outputs": pairs}, "\n".join(json.dumps(p, ensure_ascii=False) for p in pairs))


def inspect(
    base: Annotated[str, typer.Option(help="A Transformers folder, a Hub name, or a shipped base.")] = "tiny-decoder",
    task: Annotated[str | None, typer.Option(help="A task, whose head the base then has.", metavar="NAME")] = None,
) -> None:
    """The sites of a base, which methods fit it and why others do not, and how many parameters they train and store."""
    from graftune.cli.anatomy import show

    show(base, task)
