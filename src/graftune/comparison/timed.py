"""A timed start of a candidate: a few steps, a few answers, and what a reported trial does beside them."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

from graftune.comparison import neutral
from graftune.comparison.assignment import Assignment, Tell
from graftune.comparison.energy import measured
from graftune.comparison.forgetting import forgetting
from graftune.comparison.measure import inference, peak_memory
from graftune.comparison.splits import Splits
from graftune.training.trained import CURVE_ROWS, evaluate, train_adapter

STEPS = 8  # of which the first warms up, and the last alone is followed by an evaluation
ROWS = 16  # that are answered


def timed(given: Assignment, tell: Tell) -> dict[str, Any]:
    """The seconds of its parts, as `estimate.Cost` has them, its peak of memory, and joules for each second."""
    began = time.perf_counter()
    recipe = given.own_recipe.model_copy(update={"max_steps": STEPS, "epochs": None, "eval_every": STEPS})
    splits = Splits.read(given.recipe)
    train, held = splits.pair(recipe.seed)
    experiment = given.prepared(recipe, splits, train, held)
    reports: list[float] = []
    tell("timing", None)
    with measured() as meter, peak_memory() as peak:
        trained = train_adapter(experiment, recipe, given.method, watch=lambda _: reports.append(time.perf_counter()))
    try:
        between = [after - before for before, after in pairwise(reports[:-1])]
        step = statistics.median(between) if between else 0.0  # what is new to the processor takes longer once
        looked = max(0.0, reports[-1] - reports[-2] - step) if len(reports) > 2 else 0.0
        few = splits.tables.eval.keep(splits.tables.eval.rows[:ROWS])
        reporting = replace(experiment, tables=splits.with_tables(train, few))
        first = time.perf_counter()
        evaluate(trained, reporting, recipe)
        answering = time.perf_counter()  # the first time loads what the metric needs
        evaluate(trained, reporting, recipe)
        answered = time.perf_counter()
        inference(trained, reporting)
        on_all = replace(experiment, tables=splits.with_tables(train, splits.tables.eval))
        forgetting(trained, on_all, neutral.passages(recipe.compare.neutral))
        ended = time.perf_counter()
    finally:
        trained.model.close()
    return {
        "status": "done",
        "begin": (reports[0] - began - step if reports else first - began) + max(0.0, 2 * answering - first - answered),
        "step": step,
        "choose_row": looked / max(1, min(CURVE_ROWS, len(held.rows))),
        "report_row": (answered - answering) / max(1, len(few.rows)),
        "finish": ended - answered,
        "memory": peak.bytes if given.method.trainable else None,
        "joules": meter.energy.joules / max(meter.energy.seconds, 1e-9),
        "seconds": ended - began,
    }
