"""An assignment: a trial and all that it needs, to be run in any process, on any machine that sees the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from graftune.comparison.candidates import Candidate
from graftune.comparison.measure import touch
from graftune.comparison.plan import Trial
from graftune.comparison.splits import Splits
from graftune.config.recipe import Recipe
from graftune.datasets.rows import Table
from graftune.methods.method import Method
from graftune.training.budget import steps_of
from graftune.training.loop import Report
from graftune.training.prepare import Experiment, prepare, task_of

LEAST = 40  # steps of a short run: fewer tell rates apart by luck

#: Is told what a trial does, and how far its training is.
Tell = Callable[[str, Report | None], None]


def short_run(steps: int, share: float) -> int:
    """A share of the steps, but enough to tell rates apart, where there are as many."""
    return min(steps, max(LEAST, round(share * steps)))


@dataclass(frozen=True)
class Assignment:
    """A trial and all that it needs; the adapter of a reported one is kept at `place`.

    A `base` that is given as a model is taken as it is, and so is its head.
    """

    recipe: Recipe
    candidate: Candidate
    trial: Trial
    place: Path
    choosing: bool = True
    base: PreTrainedModel | None = None
    tokenizer: Any = None

    @property
    def method(self) -> Method:
        """The candidate's method, with the options that the trial has of its own."""
        method = self.candidate.method
        return replace(method, **dict(self.trial.options)) if self.trial.options else method

    @property
    def own_recipe(self) -> Recipe:
        """The recipe of this trial: its seed and its rates."""
        recipe, trial, name = self.candidate.recipe(self.recipe), self.trial, self.candidate.method.preset
        section = dict(recipe.sections.get(name, {}))
        if trial.rate is not None:
            section["lr"] = trial.rate
        if trial.head is not None:
            section.setdefault("head_lr", trial.head)
        changes: dict[str, Any] = {"seed": trial.seed, "sections": {**recipe.sections, name: section}}
        if self.choosing:
            changes["keep_best"] = True
        return recipe.model_copy(update=changes)

    def prepared(self, recipe: Recipe, splits: Splits, train: Table, held: Table) -> Experiment:
        """The base, and the task with these rows. Raises GraftuneError where they do not fit."""
        task = task_of(recipe, self.method)
        experiment = prepare(recipe, task, splits.with_tables(train, held), self.base, self.tokenizer)
        touch(experiment.base)
        return experiment

    def shortened(self, recipe: Recipe, rows: int) -> Recipe:
        """The recipe with the trial's share of the steps that it has on so many rows, at least `LEAST` of them."""
        if self.trial.share >= 1:
            return recipe
        steps = short_run(steps_of(recipe, rows), self.trial.share)
        return recipe.model_copy(update={"max_steps": steps, "epochs": None})

    @property
    def names(self) -> dict[str, Any]:
        """What a line of results says of the trial itself."""
        trial = self.trial
        return {
            **{"stage": trial.stage, "label": trial.label, "method": self.candidate.method.preset, "seed": trial.seed},
            **{"rate": trial.rate, "head_rate": trial.head, "share": trial.share, "rows": trial.rows},
            "options": dict(trial.options),
        }

    def broken(self, why: str) -> dict[str, Any]:
        """The line of a trial that ended for a reason that may pass, so that it is tried again."""
        return {**self.names, "status": "failed", "error": why, "again": True}


def quiet(stage: str, report: Report | None = None) -> None:
    """Nobody is told."""
