"""A run: one method trained from a recipe into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from graftune.checkpoint import fingerprint, native
from graftune.config import recipe as recipes
from graftune.config.recipe import Recipe
from graftune.methods.method import Method
from graftune.training import distributed, state, trackers
from graftune.training.loop import Watch
from graftune.training.prepare import Experiment, prepare, task_of
from graftune.training.record import RECORD, Run, begin_record, check_folder, check_same, read_record, write_record
from graftune.training.tables import announce, read_tables
from graftune.training.trained import Say, TrainedAdapter, evaluate, ignore, train_adapter, use_of


def train(
    base: PreTrainedModel | str,
    method: Method,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    resume: bool = False,
    tokenizer: Any = None,
    watch: Watch = ignore,
    say: Say = ignore,
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
        watch, say = ignore, ignore
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
    data = {"train": tables.train.fingerprint, "eval": tables.eval.fingerprint}
    distributed.agree("options, data and folder", (resolved, data, finished))
    if resume:
        check_same(out, data)
    if finished:
        say(f"{out} holds a finished run; nothing is left to do")
        return read_record(out)
    if resume and not state.any_in(out):
        say(f"{out} has no checkpoint yet: starting from the first step")
    experiment = prepare(recipe, task, tables, None if isinstance(base, str) else base, tokenizer)
    data["base"] = fingerprint.of_base(experiment.base)
    if resume:
        check_same(out, data)
    shown = recipe.trackers if distributed.first() else []
    with trackers.tracked(watch, shown, out, recipe.model_dump()) as watching:
        trained = train_adapter(
            experiment,
            recipe,
            method,
            watch=watching,
            say=say,
            folder=out,
            resume=resume,
            begin=lambda: begin_record(out, resolved, data) if distributed.first() else None,
        )
    try:
        if trained.truncated:
            say(f"{trained.truncated} rows were cut to fit the maximum length")
        metrics = _keep(out, trained, experiment, recipe) if distributed.first() else {}
    finally:
        trained.model.close()
    return Run(out, trained.count, distributed.told(metrics), trained.progress)


def _keep(out: Path, trained: TrainedAdapter, experiment: Experiment, recipe: Recipe) -> dict[str, float]:
    """Write the adapter, evaluate it and write the record of the run; its metrics."""
    native.save(
        trained.model.adapter(trained.name),
        experiment.base,
        out / "adapter",
        use_of(trained, experiment, recipe),
    )
    evaluation = evaluate(trained, experiment, recipe)
    write_record(out, trained, experiment, evaluation)
    state.clear(out)  # a finished run is not resumed
    return evaluation.metrics
