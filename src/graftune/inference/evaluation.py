"""Evaluation: an adapted model on rows of a task, to metrics and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from graftune.datasets.rows import Row, bad_lines
from graftune.errors import GraftuneError
from graftune.inference import generation
from graftune.inference.losses import batch_losses, mean
from graftune.inference.running import Progress, batches, encoder_for, evaluating
from graftune.model.adapted import AdaptedModel
from graftune.tasks.bound import BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder, TooLong
from graftune.tasks.task import Task
from graftune.tasks.writing import BoundWriting
from graftune.templates.template import Template


def check(task: BoundTask, rows: Sequence[Row]) -> None:
    """Raise GraftuneError for no rows, and for rows that the task cannot use, all of them at once."""
    if not rows:
        raise GraftuneError(
            "no rows to evaluate", received="an empty list", expected="at least one row", do="check the data"
        )
    if problems := problems_of(task, rows):
        raise bad_lines(task.task.name, problems, task.task.expectation)


def problems_of(task: BoundTask, rows: Sequence[Row]) -> dict[int, str]:
    """What is wrong with each row that the task cannot use, by its line."""
    if type(task).problem is BoundTask.problem and type(task.task).problem is Task.problem:
        return {}  # no need to look at every row
    found = ((row.line, task.task.problem(row) or task.problem(row)) for row in rows)
    return {line: problem for line, problem in found if problem}


def evaluate(
    model: AdaptedModel,
    task: BoundTask,
    rows: Sequence[Row],
    adapter: str | None,
    template: Template,
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Metrics and predictions of `adapter` (None = the plain base) on `rows`, and the mean loss over all targets.

    `progress` gets the number of rows just done. Rows that are too long even for their loss are left out of it, and
    counted in a note. Raises GraftuneError for no rows, and for rows that the task cannot use.
    """
    check(task, rows)
    encoder = encoder_for(model, task.processor, template, adapter, max_length)
    with evaluating(model):
        if isinstance(task, BoundWriting):
            return _evaluate_texts(model, task, rows, adapter, encoder, batch_size, progress)
        features = [task.encode(row, encoder) for row in rows]
        for row, own in zip(rows, features, strict=True):
            for part in own:
                encoder.check(row.line, part.ids)
        flat = [part for own in features for part in own]
        told = progress if len(flat) == len(rows) else None
        answers, loss = _answers(model, task, flat, adapter, batch_size, told)
        if progress is not None and told is None:
            progress(len(rows))
    results = iter(answers)
    evaluation = task.score(rows, features, [[next(results) for _ in own] for own in features])
    return replace(evaluation, metrics={**evaluation.metrics, "loss": loss})


def calibrated(
    model: AdaptedModel, task: BoundTask, rows: Sequence[Row], adapter: str, encoder: PromptEncoder, batch_size: int
) -> BoundTask:
    """The task with settled what only a trained adapter can, by its answers to rows that it was not trained on."""
    features = [task.encode(row, encoder) for row in rows]
    with evaluating(model):
        answers, _ = _answers(model, task, [part for own in features for part in own], adapter, batch_size, None)
    results = iter(answers)
    return task.calibrate(rows, features, [[next(results) for _ in own] for own in features])


def _answers(
    model: AdaptedModel,
    task: BoundTask,
    features: Sequence[Features],
    adapter: str | None,
    batch_size: int,
    progress: Progress | None,
) -> tuple[list[object], float]:
    """What the task decodes of each of the features, in their order, and the mean loss; one forward pass a batch."""
    answers: list[object] = [None] * len(features)
    sums, counts = torch.zeros(()), torch.zeros(())
    for indices, batch in batches(task, model, features, batch_size):
        outputs = task.outputs(model, batch, adapter)
        for i, answer in zip(indices, task.decode(outputs, batch), strict=True):
            answers[i] = answer
        sums = sums + task.losses(outputs, batch).sum(0).cpu().double()
        counts = counts + task.counts(batch).sum(0).cpu().double()
        if progress is not None:
            progress(len(indices))
    return answers, mean(sums, counts)


def _evaluate_texts(
    model: AdaptedModel,
    task: BoundWriting,
    rows: Sequence[Row],
    adapter: str | None,
    encoder: PromptEncoder,
    batch_size: int,
    progress: Progress | None,
) -> Evaluation:
    """The loss of every row, and the texts that are written for the groups of rows with one input."""
    features: list[Features] = []
    left_out = 0
    for row in rows:
        try:
            features += task.encode(row, encoder)
        except TooLong:
            left_out += 1
    if not features:
        task.encode(rows[0], encoder)  # says what is too long
    loss = mean_over(model, task, features, adapter, batch_size)
    written = generation.write(model, task, rows, adapter, encoder, batch_size, progress)
    prompts = [[Features(prompt.ids, None, prompt.truncated)] for prompt in written.prompts]
    evaluation = task.score(written.groups, prompts, [[text] for text in written.texts])
    notes = {**evaluation.notes, **written.notes}
    if left_out:
        notes["loss"] = f"{left_out} of {len(rows)} rows are too long for it, their targets being what they are"
    metrics = {**evaluation.metrics, "loss": loss, "perplexity": math.exp(loss) if loss < 700 else math.inf}
    return replace(evaluation, metrics=metrics, notes=notes)


def mean_over(
    model: AdaptedModel, task: BoundTask, features: Sequence[Features], adapter: str | None, batch_size: int
) -> float:
    """The mean loss over all targets of all rows, so that batching does not weigh in."""
    sums, counts = torch.zeros(()), torch.zeros(())
    for _, batch in batches(task, model, features, batch_size):
        sums = sums + batch_losses(model, adapter, task, batch).sum(0).cpu().double()
        counts = counts + task.counts(batch).sum(0).cpu().double()
    return mean(sums, counts)
