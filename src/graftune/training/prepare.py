"""Preparation: data read and checked, then the base loaded, once for any number of methods."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from graftune.bases.loading import load_base, load_config, load_processor
from graftune.config.recipe import Recipe
from graftune.datasets.rows import Row, Table
from graftune.errors import GraftuneError
from graftune.inference.evaluation import problems_of
from graftune.methods.method import Method
from graftune.tasks import registry
from graftune.tasks.bound import BoundTask
from graftune.tasks.task import Task
from graftune.templates.template import Template, composed
from graftune.training.tables import Tables


@dataclass(frozen=True)
class Experiment:
    """A base, the task bound to it and its tokenizer (or image processor), and the rows."""

    base: PreTrainedModel
    task: BoundTask
    tables: Tables


def task_of(recipe: Recipe, method: Method) -> Task:
    """The recipe's task; methods without training answer in words, since they have no head to train."""
    task = registry.make(recipe.task, **recipe.section(recipe.task))
    if method.trainable or (other := task.without_training()) is task:
        return task
    return replace(other, **recipe.section(other.name))  # type: ignore[type-var]


def prepare(
    recipe: Recipe,
    task: Task,
    tables: Tables,
    base: PreTrainedModel | None = None,
    tokenizer: object = None,
) -> Experiment:
    """Fit the task to the training rows, then load tokenizer and base, if they are not given.

    Raises GraftuneError for rows, a base or a tokenizer that the task cannot use.
    """
    task = tables.settle(task)
    if base is None:
        tokenizer = load_processor(recipe.base, task.processor)
        head = task.head(load_config(recipe.base))
        base = load_base(recipe.base, head, tokenizer, recipe.precision, recipe.seed, recipe.quantize)
    elif tokenizer is None:
        raise GraftuneError(
            "a base given as a model needs its tokenizer",
            received="tokenizer=None",
            expected="the tokenizer that belongs to it",
            do="pass tokenizer=…, or the name of the base",
        )
    bound = task.bind(base.config, tokenizer)

    def usable(table: Table) -> Table:
        """Without the rows whose problems only the tokenizer shows."""
        return table.without(problems_of(bound, table.rows), recipe.bad_rows, task.expectation)

    return Experiment(base, bound, replace(tables, train=usable(tables.train), eval=usable(tables.eval)))


def template_of(method: Method, task: Task, rows: Sequence[Row], seed: int) -> Template:
    """The method's template in the task's, with its solved examples in front."""
    text = composed(method.template.replace("{instruction}", Template.literal(task.instruction)), task.template)
    if method.shots:
        if method.shots > len(rows):
            raise GraftuneError(
                "there are not that many solved examples",
                received=f"{method.shots} examples asked of {len(rows)} training rows",
                expected=f"at most {len(rows)}",
            )
        chosen = random.Random(f"shots-{seed}").sample(rows, method.shots)
        text = Template.literal("".join(task.demonstration(row) for row in chosen)) + text
    return Template(text)
