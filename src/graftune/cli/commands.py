"""The commands. Each one parses, calls the library and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftune.cli import options as o
from graftune.errors import GraftuneError

if TYPE_CHECKING:
    from graftune.inference.predictor import Predictor
    from graftune.training.recipe import Recipe


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


def train(
    method: Annotated[
        str | None,
        typer.Option(help="lora (default), prefix, prompt, p-tuning, houlsby, freeze, bitfit, ia3, full, …"),
    ] = None,
    out: o.Out = Path("runs/train"),
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
    checkpoint_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings: o.Settings = None,
    recipe: o.RecipeFile = None,
) -> None:
    """Train one method; the adapter is kept in OUT/adapter."""
    flags = {
        "method": method, "base": base, "task": task, "train": train, "eval": eval, "input": input,
        "target": target, "batch_size": batch_size, "max_steps": max_steps, "epochs": epochs, "lr": lr,
        "seed": seed, "precision": precision, "train_rows": train_rows, "eval_rows": eval_rows,
        "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    from graftune.methods.method import make
    from graftune.training import recipe as recipes

    resolved = recipes.load(recipe, flags, tuple(settings or ()), method="lora")
    name = str(resolved.method)
    built = make(name, **resolved.section(name))
    from graftune.cli import live
    from graftune.training.run import train as run

    use_threads(resolved)
    with live.line() as line:
        result = run(resolved.base, built, out=out, recipe=resolved, resume=resume, watch=line.report, say=live.say)
    if live.SPEAKS:
        typer.echo(
            f"{name}: {_metrics(result.metrics)}\n"
            f"trained {result.count.trained:,} parameters, stored {result.count.stored:,}\n"
            f"adapter: {out / 'adapter'}"
        )


def evaluate(
    eval: Annotated[str, typer.Option(help="Evaluation data.", metavar="FILE")],
    adapter: o.Adapter = None,
    base: o.Base = None,
    task: o.Task = None,
    input: o.Input = None,
    target: o.Target = None,
    batch_size: o.BatchSize = None,
    precision: o.Precision = None,
    eval_rows: o.EvalRows = None,
    out: o.Result = None,
    settings: o.Settings = None,
    recipe: o.RecipeFile = None,
) -> None:
    """Metrics and predictions of an adapter (or of the plain base) on a data set."""
    from graftune.training import recipe as recipes

    flags = {
        "base": base, "task": task, "eval": eval, "input": input, "target": target,
        "batch_size": batch_size, "precision": precision, "eval_rows": eval_rows,
    }  # fmt: skip
    resolved = recipes.load(recipe, flags, tuple(settings or ()))
    _check_out(out)
    from graftune.cli import live
    from graftune.training.tables import announce_table, read_eval

    predictor = _predictor(adapter, resolved, eval)
    table = read_eval(resolved, predictor.task.task)
    announce_table(table, predictor.task.task, live.say)
    result = predictor.evaluate(table, 2 * resolved.batch_size)
    if "generation" in result.notes:
        live.say(f"generation {result.notes['generation']}")
    data = {"metrics": result.metrics, "notes": result.notes, "predictions": result.predictions}
    _answer(out, data, _metrics(result.metrics))


def generate(
    adapter: o.Adapter = None,
    text: Annotated[list[str] | None, typer.Option(help="An input; may be given several times.")] = None,
    eval: Annotated[str | None, typer.Option(help="Data whose inputs to answer.", metavar="FILE")] = None,
    input: o.Input = None,
    base: o.Base = None,
    task: o.Task = None,
    batch_size: o.BatchSize = None,
    precision: o.Precision = None,
    out: o.Result = None,
    settings: o.Settings = None,
    recipe: o.RecipeFile = None,
) -> None:
    """Answers of an adapter (or of the plain base) to texts, or to a column of a file."""
    from graftune.training import recipe as recipes

    if (text is None) == (eval is None):
        raise GraftuneError(
            "generate needs inputs", received="--text and --eval" if text else "neither --text nor --eval",
            expected="one of them", do='give --text "…" or --eval FILE',
        )  # fmt: skip
    if text is not None and not all(words.strip() for words in text):
        raise GraftuneError(
            "an input is empty", received='--text ""', expected="some words in every --text", do="leave it out"
        )
    flags = {"base": base, "task": task, "input": input, "batch_size": batch_size, "precision": precision}
    resolved = recipes.load(recipe, flags, tuple(settings or ()))
    _check_out(out)
    from graftune.datasets.rows import read_inputs, rows_of

    predictor = _predictor(adapter, resolved)
    columns = predictor.task.task.columns
    rows = read_inputs(str(eval), resolved.input, columns) if text is None else rows_of(text, columns)
    answers = predictor(rows, 2 * resolved.batch_size)
    shown = [predictor.task.display(row) for row in rows]
    pairs = [{"input": i, "output": a} for i, a in zip(shown, answers, strict=True)]
    _answer(out, {"outputs": pairs}, "\n".join(json.dumps(p, ensure_ascii=False) for p in pairs))


def inspect(
    base: Annotated[str, typer.Option(help="A Transformers folder, a Hub name, or a shipped base.")] = "tiny-decoder",
    task: o.Task = None,
) -> None:
    """The sites of a base, which methods fit it and why others do not, and how many parameters they train and store."""
    from graftune.cli.anatomy import show

    show(base, task)
