"""What is chosen by the rows that are neither trained on nor reported: a rate's score, and which checkpoint is kept."""

from __future__ import annotations

from collections.abc import Mapping

from graftune.comparison import lines
from graftune.config.recipe import Recipe
from graftune.inference.evaluation import mean_over
from graftune.inference.running import evaluating
from graftune.tasks.writing import BoundWriting
from graftune.training import state
from graftune.training.encoding import encode_table
from graftune.training.prepare import Experiment
from graftune.training.trained import TrainedAdapter, evaluate


def chosen(trained: TrainedAdapter, experiment: Experiment, recipe: Recipe) -> Mapping[str, float]:
    """Keep the checkpoint of the lowest loss or the last one, whichever scores higher; the metrics of that one.

    The curve that the first was found by has few rows, and a loss says little of an accuracy: only where the score on
    all rows agrees was the end worse.
    """
    metrics = metrics_of(trained, experiment, recipe)
    if not trained.progress.last:
        return metrics
    adapter = trained.model.adapter(trained.name)
    best = {name: parameter.detach().clone() for name, parameter in adapter.named_parameters()}
    state.restore(adapter, trained.progress.last)
    at_last = metrics_of(trained, experiment, recipe)
    if score(at_last, experiment) >= score(metrics, experiment):
        return at_last
    state.restore(adapter, best)
    return metrics


def metrics_of(trained: TrainedAdapter, experiment: Experiment, recipe: Recipe) -> Mapping[str, float]:
    """Metrics on the rows to choose by; of a task that writes text the loss alone, since writing takes its time."""
    task = trained.task
    if not isinstance(task, BoundWriting):
        return evaluate(trained, experiment, recipe).metrics
    features = encode_table(experiment.tables.eval, task, trained.encoder, recipe.processes).features
    with evaluating(trained.model):
        return {"loss": mean_over(trained.model, task, features, trained.name, 2 * recipe.batch_size)}


def score(metrics: Mapping[str, float], experiment: Experiment) -> float:
    """What is chosen by, larger is better: the primary metric, of a task that writes text the loss."""
    if isinstance(experiment.task, BoundWriting):
        return -metrics["loss"]
    name = experiment.task.task.metric
    return lines.sign(name) * metrics[name]
