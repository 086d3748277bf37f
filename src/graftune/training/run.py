"""A run: one method trained from a recipe into a folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from graftune import files
from graftune.checkpoint import fingerprint, native
from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.model.adapted import AdaptedModel
from graftune.model.adapter import Count
from graftune.tasks.features import Features, Reading
from graftune.tasks.running import first_virtual_id
from graftune.tasks.task import Evaluation
from graftune.training import distributed, state, trackers
from graftune.training import recipe as recipes
from graftune.training.budget import Budget, budget_of
from graftune.training.loop import Report, Watch, fit
from graftune.training.optimizer import check_rates
from graftune.training.prepare import Prepared, announce, prepare, read_tables, task_of, template_of
from graftune.training.recipe import Recipe
from graftune.training.speed import fast
from graftune.training.state import Progress

RECORD = "run.json"
CURVE_ROWS = 64  # held-out rows behind each point of the curve

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """What training gave: counts, the curve, and the model with the adapter still attached."""

    model: AdaptedModel
    name: str
    count: Count
    progress: Progress
    budget: Budget
    truncated: int


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its adapter's counts, and its metrics on the evaluation data."""

    out: Path
    count: Count
    metrics: dict[str, float]
    progress: Progress


def quiet(_: object) -> None:
    """Nobody watches."""


def encode(
    prepared: Prepared, recipe: Recipe, method: Method, model: AdaptedModel
) -> tuple[list[Features], list[Features]]:
    """Features of the training rows, and of the held-out rows behind the curve."""
    template = template_of(method, prepared.task, prepared.tables.train.rows, recipe.seed)
    limit = recipe.max_length or prepared.max_length
    reading = Reading(prepared.tokenizer, template, first_virtual_id(model), limit)

    def features(rows: Sequence[Any]) -> list[Features]:
        parts = [prepared.task.parts(row, reading) for row in rows]
        return [part for own in parts for part in own]

    if not method.trainable:
        return [], []
    held = prepared.tables.eval.rows
    return features(prepared.tables.train.rows), features(held[:: max(1, len(held) // CURVE_ROWS)][:CURVE_ROWS])


def train_adapter(
    prepared: Prepared,
    recipe: Recipe,
    method: Method,
    *,
    watch: Watch = quiet,
    say: Say = quiet,
    folder: Path | None = None,
    resume: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> Trained:
    """Attach the method to the base and train it; the caller closes the model.

    ``begin`` is called when everything has been checked and nothing has been written.
    """
    model = AdaptedModel(prepared.base, prepared.tokenizer)
    labels = tuple(getattr(prepared.task, "labels", ()) or ())
    name = "trained"
    heads = prepared.task.head_names(prepared.base) if method.trainable else ()
    model.add(name, method, heads=heads, labels=labels, seed=recipe.seed)
    try:
        features, held = encode(prepared, recipe, method, model)
        budget = budget_of(recipe, method, len(features), model)
        count = model.count(name)
        progress = Progress()
        check_rates(model.adapter(name), budget)
        begin()
        if budget.steps:
            with fast(model, recipe, say), distributed.sharded(model, recipe.shard, say):
                progress = fit(
                    model,
                    name,
                    prepared.task,
                    features,
                    held,
                    prepared.tokenizer,
                    budget,
                    watch=watch,
                    say=say,
                    folder=folder,
                    resume=resume,
                )
    except BaseException:
        model.close()  # the base is shared with the next run
        raise
    return Trained(model, name, count, progress, budget, sum(f.truncated for f in features))


def evaluate(
    trained: Trained, prepared: Prepared, recipe: Recipe, progress: Callable[[int], None] | None = None
) -> Evaluation:
    """The trained adapter on the evaluation data."""
    method = trained.model.adapter(trained.name).method
    template = template_of(method, prepared.task, prepared.tables.train.rows, recipe.seed)
    return prepared.task.evaluate(
        trained.model,
        prepared.tokenizer,
        prepared.tables.eval.rows,
        trained.name,
        template,
        batch_size=2 * recipe.batch_size,
        max_length=recipe.max_length or prepared.max_length,
        progress=progress,
    )


def use_of(trained: Trained, prepared: Prepared, recipe: Recipe) -> dict[str, Any]:
    """What it takes to use the adapter later as the run did."""
    method = trained.model.adapter(trained.name).method
    template = template_of(method, prepared.task, prepared.tables.train.rows, recipe.seed)
    return {
        "base": recipe.base,
        "task": prepared.task.state(),
        "template": template.text,
        "max_length": recipe.max_length,
        "precision": recipe.precision,
        "quantize": recipe.quantize,
    }


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("graftune", "torch", "transformers", "datasets", "sacrebleu")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def check_folder(out: Path, text: str, resume: bool) -> None:
    """Raise GraftuneError where ``out`` holds another run, or one already."""
    kept = out / "recipe.yaml"
    if kept.exists():
        if kept.read_text(encoding="utf-8") != text and resume:
            raise GraftuneError(
                f"{out} holds a run of another recipe",
                received="options that differ from recipe.yaml there",
                expected="the options the run was started with",
                do="start it with the same options, or choose another --out",
            )
        if not resume:
            raise GraftuneError(
                f"{out} already holds a run",
                received="a folder with a recipe.yaml",
                expected="a new folder",
                do="continue it with --resume, or choose another --out",
            )


def train(
    base: PreTrainedModel | str,
    method: Method,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    resume: bool = False,
    tokenizer: Any = None,
    watch: Watch = quiet,
    say: Say = quiet,
    **options: Any,
) -> Run:
    """Train one adapter and keep it in ``out/adapter``.

    ``base`` is a model, or the name or folder of one; ``options`` are the keys of a recipe (``task``,
    ``train``, ``eval``, ``max_steps`` …). The folder holds the resolved ``recipe.yaml``, ``run.json``
    (versions, fingerprints, metrics), ``log.jsonl``, ``curve.svg`` and the adapter. Raises GraftuneError for
    anything wrong with options, data, base or folder.
    """
    distributed.join()
    if not distributed.first():
        watch, say = quiet, quiet
    named = base if isinstance(base, str) else base.config.name_or_path
    recipe = recipes.given(named, recipe, options)
    tables = read_tables(recipe)
    announce(tables, recipe, say)
    task = task_of(recipe, method)
    out = Path(out)
    resolved = recipes.dump(recipes.with_methods(recipe, [method], method=method.preset))
    check_folder(out, resolved, resume)
    trackers.check(recipe.trackers)
    finished = resume and (out / RECORD).exists()
    distributed.agree(
        "options, data and folder", (resolved, tables.train.fingerprint, tables.eval.fingerprint, finished)
    )
    if finished:
        say(f"{out} holds a finished run; nothing is left to do")
        return _finished(out)
    if resume and not state.any_in(out):
        say(f"{out} has no checkpoint yet: starting from the first step")
    prepared = prepare(recipe, task, tables, None if isinstance(base, str) else base, tokenizer)
    shown = recipe.trackers if distributed.first() else []
    with trackers.tracked(watch, shown, out, recipe.model_dump()) as watching:
        trained = train_adapter(
            prepared,
            recipe,
            method,
            watch=watching,
            say=say,
            folder=out,
            resume=resume,
            begin=lambda: files.write_text(out / "recipe.yaml", resolved) if distributed.first() else None,
        )
    try:
        if trained.truncated:
            say(f"{trained.truncated} inputs were cut to fit the maximum length")
        metrics = _keep(out, trained, prepared, recipe) if distributed.first() else {}
    finally:
        trained.model.close()
    return Run(out, trained.count, distributed.told(metrics), trained.progress)


def _keep(out: Path, trained: Trained, prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    """Write the adapter, evaluate it and write the record of the run; its metrics."""
    native.save(
        trained.model.adapter(trained.name),
        prepared.base,
        out / "adapter",
        use_of(trained, prepared, recipe),
    )
    evaluation = evaluate(trained, prepared, recipe)
    _write_record(out, trained, prepared, evaluation)
    state.clear(out)  # a finished run is not resumed
    return evaluation.metrics


def _finished(out: Path) -> Run:
    """A run read back from its folder."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    log = (out / "log.jsonl").read_text(encoding="utf-8") if (out / "log.jsonl").exists() else ""
    progress = Progress(record["steps"], record["train_seconds"], record["tokens"])
    progress.curve = [json.loads(line) for line in log.splitlines()]
    return Run(out, Count(**record["parameters"]), record["metrics"], progress)


def _write_record(out: Path, trained: Trained, prepared: Prepared, evaluation: Evaluation) -> None:
    from graftune.training.plot import curve_svg

    predictions = [json.dumps(p, ensure_ascii=False) for p in evaluation.predictions]
    files.write_text(out / "predictions.jsonl", "".join(f"{line}\n" for line in predictions))
    if trained.progress.curve:
        files.write_text(out / "curve.svg", curve_svg(trained.progress.curve))
    files.write_json(
        out / RECORD,
        {
            "metrics": evaluation.metrics,
            "notes": evaluation.notes,
            "parameters": {"trained": trained.count.trained, "stored": trained.count.stored},
            "bytes_stored": native.size(out / "adapter"),
            "steps": trained.progress.step,
            "train_seconds": trained.progress.seconds,
            "tokens": trained.progress.tokens,
            "base_fingerprint": fingerprint.of_base(prepared.base),
            "data": {
                kind: {
                    "source": t.source,
                    "rows": len(t.rows),
                    "left_out": len(t.left_out),
                    "fingerprint": t.fingerprint,
                }
                for kind, t in (("train", prepared.tables.train), ("eval", prepared.tables.eval))
            },
            "versions": versions(),
            "threads": torch.get_num_threads(),
        },
    )


__all__ = ["Report", "Run", "train", "train_adapter"]
