"""One adapter trained on an experiment, in memory: encoded, trained, evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftune.checkpoint.processor import of_processor
from graftune.config.recipe import Recipe
from graftune.datasets.rows import Row, Table, bad_lines
from graftune.datasets.splits import split_off
from graftune.inference import evaluation, generation
from graftune.inference.running import encoder_for
from graftune.methods.method import Method
from graftune.model.adapted import AdaptedModel
from graftune.model.adapter import Count
from graftune.tasks import registry
from graftune.tasks.bound import BoundTask, Evaluation
from graftune.tasks.features import PromptEncoder
from graftune.tasks.writing import BoundWriting
from graftune.training import distributed, encoding
from graftune.training.budget import Budget, budget_of
from graftune.training.encoding import EncodedTable, encode_table
from graftune.training.loop import Watch, fit
from graftune.training.optimizer import check_rates
from graftune.training.prepare import Experiment, template_of
from graftune.training.speed import fast
from graftune.training.state import Progress
from graftune.training.tables import key_of, sample

CURVE_ROWS = 64  # held-out rows behind each point of the curve
CALIBRATION = 0.1  # of the training rows

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainedAdapter:
    """What training gave: counts, the curve, and the model with the adapter still attached."""

    model: AdaptedModel
    name: str
    count: Count
    progress: Progress
    budget: Budget
    task: BoundTask
    encoder: PromptEncoder
    truncated: int


def ignore(_: object) -> None:
    """The default callback: nothing is told."""


def train_adapter(
    experiment: Experiment,
    recipe: Recipe,
    method: Method,
    *,
    watch: Watch = ignore,
    say: Say = ignore,
    folder: Path | None = None,
    resume: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> TrainedAdapter:
    """Attach the method to the base and train it; the caller closes the model.

    ``begin`` is called when everything has been checked and nothing has been written.
    """
    task = experiment.task
    model = AdaptedModel(experiment.base, task.processor)
    labels = tuple(getattr(task.task, "labels", None) or ())
    name = "trained"
    heads = task.task.head(model.config).modules(experiment.base) if method.trainable else ()
    model.add(name, method, heads=heads, labels=labels, seed=recipe.seed)
    try:
        if isinstance(task, BoundWriting) and (remark := generation.taken(model, task)):
            say(f"generation {remark}")
        encoder = encoder_of(experiment, recipe, method, model)
        if isinstance(task, BoundWriting):  # what would end the run after its training ends it before
            generation.prompt_limit(task, encoder.max_length, task.task.max_new_tokens)
        experiment, calibration = without_calibration(experiment, recipe, say)
        nothing = EncodedTable([], 0, {})
        train, held = encode(experiment, encoder, recipe, say) if method.trainable else (nothing, nothing)
        budget = budget_of(recipe, method, len(train.features), model)
        count = model.count(name)
        progress = Progress()
        check_rates(model.adapter(name), budget)
        begin()
        if budget.steps:
            with fast(model, recipe, say), distributed.sharded(model, recipe.shard, say):
                progress = fit(
                    model,
                    name,
                    task,
                    train.features,
                    held.features,
                    budget,
                    watch=watch,
                    say=say,
                    folder=folder,
                    resume=resume,
                )
        if calibration is not None and method.trainable:
            task = evaluation.calibrated(model, task, calibration.rows, name, encoder, 2 * recipe.batch_size)
    except BaseException:
        model.close()  # the base is shared with the next run
        raise
    return TrainedAdapter(model, name, count, progress, budget, task, encoder, train.truncated)


def without_calibration(experiment: Experiment, recipe: Recipe, say: Say) -> tuple[Experiment, Table | None]:
    """The experiment without the training rows that are held out to settle what only a trained adapter can, and these.

    None where nothing is to be settled.
    """
    if not experiment.task.needs_calibration:
        return experiment, None
    key = key_of(experiment.task.task)
    train, held = split_off(experiment.tables.train, CALIBRATION, recipe.seed, lambda row: bool(row.target), key)
    say(f"{len(held.rows)} training rows are held out to choose when to answer nothing")
    return replace(experiment, tables=replace(experiment.tables, train=train)), held


def encoder_of(experiment: Experiment, recipe: Recipe, method: Method, model: AdaptedModel) -> PromptEncoder:
    """How the rows of an experiment are read for a method."""
    template = template_of(method, experiment.task.task, experiment.tables.train.rows, recipe.seed)
    (name,) = model.adapters
    return encoder_for(model, experiment.task.processor, template, name, recipe.max_length)


def encode(
    experiment: Experiment, encoder: PromptEncoder, recipe: Recipe, say: Say = ignore
) -> tuple[EncodedTable, EncodedTable]:
    """Features of the training rows, and of the held-out rows behind the curve.

    Of a large table that the steps do not get through, only as many rows as they take are drawn and read. Rows that
    are too long are bad lines like others: left out and said up to a share. Raises GraftuneError above it.
    """
    task, tables = experiment.task, experiment.tables

    def features(table: Table) -> EncodedTable:
        found = encode_table(table, task, encoder, recipe.processes)
        if len(found.too_long) > recipe.bad_rows * len(table.rows):
            raise bad_lines(table.source, found.too_long, f"rows that fit {encoder.max_length} tokens")
        if found.too_long:
            say(f"{table.source}: {len(found.too_long)} rows left out, which do not fit {encoder.max_length} tokens")
        return found

    held = tables.eval.rows
    chosen = tables.eval.keep(held[:: max(1, len(held) // CURVE_ROWS)][:CURVE_ROWS])
    for remark in task.remarks(tables.train.rows):
        say(f"{tables.train.source}: {remark}")
    if isinstance(task, BoundWriting):
        _announce_long_targets(task, tables.train.rows, say)
    most = None if recipe.max_steps is None else recipe.max_steps * recipe.batch_size
    large = len(tables.train.rows) > encoding.LARGE
    return features(sample(tables.train, most, recipe.seed) if large else tables.train), features(chosen)


def _announce_long_targets(task: BoundWriting, rows: Sequence[Row], say: Say) -> None:
    """Say before the training what will be cut at the evaluation: targets longer than what may be written."""
    sample = rows[:: max(1, len(rows) // 1000)]
    long = sum(task.target_length(row) > task.task.max_new_tokens for row in sample)
    if long:
        share = f"{long} of {len(sample)} targets" + (" looked at" if len(sample) < len(rows) else "")
        say(f"{share} are longer than max_new_tokens={task.task.max_new_tokens}: answers will be cut")


def evaluate(
    trained: TrainedAdapter, experiment: Experiment, recipe: Recipe, progress: Callable[[int], None] | None = None
) -> Evaluation:
    """The trained adapter on the evaluation data."""
    return evaluation.evaluate(
        trained.model,
        trained.task,
        experiment.tables.eval.rows,
        trained.name,
        trained.encoder.template,
        batch_size=2 * recipe.batch_size,
        max_length=trained.encoder.max_length,
        progress=progress,
    )


def use_of(trained: TrainedAdapter, experiment: Experiment, recipe: Recipe) -> dict[str, Any]:
    """What it takes to use the adapter later as the run did."""
    return {
        "base": recipe.base,
        "processor": of_processor(experiment.task.processor, chat=trained.task.task.chat),
        "task": registry.state_of(trained.task.task),
        "template": trained.encoder.template.text,
        "max_length": recipe.max_length,
        "precision": recipe.precision,
        "quantize": recipe.quantize,
    }
