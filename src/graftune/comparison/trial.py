"""One trial of a comparison: a candidate trained, measured and evaluated, to a line of results.

A trial reads its data and its base itself, so that it may run in any process, on any machine that sees the files.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from graftune.checkpoint import native
from graftune.comparison import lines, neutral
from graftune.comparison.assignment import Assignment, Tell, quiet
from graftune.comparison.choice import chosen, score
from graftune.comparison.energy import measured
from graftune.comparison.forgetting import forgetting
from graftune.comparison.measure import inference, peak_memory
from graftune.comparison.plan import Stage
from graftune.comparison.splits import Splits
from graftune.comparison.timed import timed
from graftune.config.recipe import Recipe
from graftune.errors import GraftuneError
from graftune.tasks.bound import Evaluation
from graftune.training import distributed
from graftune.training.prepare import Experiment
from graftune.training.trained import TrainedAdapter, evaluate, train_adapter, use_of

SEARCHED_INPUTS = 64  # of the rows to choose by, that a trial of the search is compared with the plain base on


def run(given: Assignment, tell: Tell = quiet) -> dict[str, Any]:
    """Run a trial; whatever ends it is its line's own error.

    Of a mistake in what was given the line has the words; of anything else the kind and the place, and that it may be
    tried again.
    """
    if given.recipe.threads is not None:
        torch.set_num_threads(given.recipe.threads)
    try:
        found = RUNS[given.trial.stage](given, tell)
    except GraftuneError as error:
        found = {"status": "failed", "error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this trial's alone, and the others go on
        *_, last = traceback.extract_tb(error.__traceback__)
        said = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
        return given.broken(said)
    return {**given.names, **found}


def _searched(given: Assignment, tell: Tell) -> dict[str, Any]:
    """Train on some of the training rows, and score on the others; of few rows on each fold in turn."""
    own, splits = given.own_recipe, Splits.read(given.recipe)
    evaluations, scores, changes, trainings = [], [], [], []
    for train, held in splits.to_choose(own.seed):
        recipe = given.shortened(own, len(train.rows))
        experiment = given.prepared(recipe, splits, train, held)
        tell("training", None)
        with measured() as meter, peak_memory() as peak:
            trained = train_adapter(experiment, recipe, given.method, watch=lambda r: tell("training", r))
        try:
            if distributed.first():
                tell("evaluating", None)
                evaluations.append(chosen(trained, experiment, recipe))
                scores.append(score(evaluations[-1], experiment))
                changes.append(forgetting(trained, experiment, (), inputs=SEARCHED_INPUTS).means)
                trainings.append(_trained_line(trained, meter.energy, peak.bytes))
        finally:
            trained.model.close()
    if not distributed.first():
        return {}
    found = {"metrics": _means(evaluations), "forgetting": _means(changes), "score": statistics.fmean(scores)}
    return {**trainings[0], **found}


def _means(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over folds."""
    return {name: statistics.fmean(one[name] for one in of) for name in of[0] if all(name in one for one in of)}


def _reported(given: Assignment, tell: Tell) -> dict[str, Any]:
    """Train, keep the adapter, measure, and evaluate on the reported rows."""
    recipe, method = given.own_recipe, given.method
    splits = Splits.read(given.recipe)
    if given.choosing and method.trainable:
        train, held = splits.pair(recipe.seed, given.trial.rows)
    else:
        train, held = splits.to_train(recipe.seed, given.trial.rows), splits.tables.eval
    experiment = given.prepared(recipe, splits, train, held)
    tell("training", None)
    with measured() as meter, peak_memory() as peak:
        trained = train_adapter(experiment, recipe, method, watch=lambda r: tell("training", r))
    try:
        if not distributed.first():
            return {}
        if given.choosing and method.trainable:
            tell("choosing a checkpoint", None)
            chosen(trained, experiment, recipe)
        reporting = replace(experiment, tables=splits.with_tables(train, splits.tables.eval))
        adapter = trained.model.adapter(trained.name)
        native.save(adapter, experiment.base, given.place, use_of(trained, reporting, recipe))
        adapter.fold()  # measured as it is served
        tell("evaluating", None)
        with measured() as answering:
            evaluation = evaluate(trained, reporting, recipe)
        others = _others(trained, reporting, recipe, splits, evaluation)
        tell("timing", None)
        speeds = inference(trained, reporting)
        tell("what it changes elsewhere", None)
        changes = forgetting(trained, reporting, neutral.passages(recipe.compare.neutral)).means
    finally:
        trained.model.close()
    answers = max(1, len(evaluation.predictions))
    return {
        **_trained_line(trained, meter.energy, peak.bytes if method.trainable else None),
        "metrics": {**evaluation.metrics, **others},
        "bytes_stored": native.size(given.place),
        "inference": speeds,
        "joules_per_answer": answering.energy.joules / answers,
        "forgetting": changes,
        "curve": trained.progress.curve,
        "examples": lines.examples(evaluation.predictions),
        "untrained": not method.trainable,
        "figures": _figures(evaluation, experiment),
    }


def _trained_line(trained: TrainedAdapter, energy: Any, peak: int | None) -> dict[str, Any]:
    """What was measured of a training."""
    progress = trained.progress
    final = [point["loss"] for point in progress.curve[-10:]]
    return {
        "status": "done",
        "error": None,
        "rate": trained.budget.lr if trained.budget.steps else None,
        "steps": trained.budget.steps,
        "parameters_trained": trained.count.trained,
        "parameters_stored": trained.count.stored,
        "train_seconds": progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
        "train_loss": sum(final) / len(final) if final else None,
        "peak_memory_bytes": peak,
        "cpu_seconds": energy.cpu_seconds,
        "joules": energy.joules,
        "energy_source": energy.source,
    }


def _others(
    trained: TrainedAdapter, experiment: Experiment, recipe: Recipe, splits: Splits, evaluation: Evaluation
) -> dict[str, float]:
    """The primary metric on groups that were trained on and on others, and the metrics on one more file."""
    name, found = experiment.task.task.metric, dict[str, float]()
    if splits.unseen:
        if evaluation.sums is None:
            raise GraftuneError(
                f"{name} cannot be told apart by groups",
                received=f"group={recipe.compare.group}",
                expected="a task whose metric is made of figures of single rows",
                do="leave --group out",
            )
        rows = {row.line: row for row in experiment.tables.eval.rows}
        seen = [splits.is_seen(rows[one["line"]]) for one in evaluation.predictions]
        for word, wanted in (("seen", True), ("unseen", False)):
            if places := [place for place, one in enumerate(seen) if one is wanted]:
                found[f"{name} {word}"] = evaluation.sums.metric(places)
    if splits.test is not None:
        testing = replace(experiment, tables=replace(experiment.tables, eval=splits.test))
        found |= {f"test {metric}": value for metric, value in evaluate(trained, testing, recipe).metrics.items()}
    return found


def _figures(evaluation: Evaluation, experiment: Experiment) -> dict[str, Any]:
    """The figures of each reported row by which the primary metric can be resampled; where it has none, itself."""
    if evaluation.sums is None:
        value = evaluation.metrics[experiment.task.task.metric]
        return {"formula": "mean", "scale": 1.0, "rows": [[value, 1.0]]}
    return {
        "formula": evaluation.sums.formula,
        "scale": evaluation.sums.scale,
        "rows": [list(row) for row in evaluation.sums.rows],
    }


#: What each stage does.
RUNS: dict[Stage, Callable[[Assignment, Tell], dict[str, Any]]] = {
    "timing": timed,
    "screen": _searched,
    "confirm": _searched,
    "report": _reported,
}
