"""Preparation: data read and checked, then the base loaded, once for any number of methods."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from graftune import data
from graftune.bases.loading import load_base, load_tokenizer
from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.tasks import registry
from graftune.tasks.data import Row, Table, fingerprint, grouped, read
from graftune.tasks.task import Task
from graftune.tasks.template import Template
from graftune.training.recipe import Recipe


@dataclass(frozen=True)
class Tables:
    """The rows to train on and to evaluate on."""

    train: Table
    eval: Table


@dataclass(frozen=True)
class Prepared:
    """A base with its tokenizer, a task that knows its labels, and the rows."""

    base: PreTrainedModel
    tokenizer: Any
    task: Task
    tables: Tables

    @property
    def max_length(self) -> int | None:
        """The number of positions the base has."""
        return getattr(self.base.config.get_text_config(), "max_position_embeddings", None)


def read_tables(recipe: Recipe) -> Tables:
    """The data of a recipe; without any, the embedded set. Raises GraftuneError for bad data."""
    if (recipe.train is None) != (recipe.eval is None):
        raise GraftuneError(
            "training and evaluation data belong together",
            received=f"train={recipe.train}, eval={recipe.eval}",
            expected="both --train and --eval, or neither (then the embedded data is used)",
            do="give the missing one",
        )
    train = read(recipe.train or data.path("train", recipe.task), recipe.input, recipe.target)
    return Tables(_sample(train, recipe.train_rows, recipe.seed), read_eval(recipe))


def read_eval(recipe: Recipe) -> Table:
    """The evaluation data of a recipe. Raises GraftuneError for bad data."""
    table = read(recipe.eval or data.path("dev", recipe.task), recipe.input, recipe.target)
    return _sample_inputs(table, recipe.eval_rows)


def announce(tables: Tables, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say aloud what was chosen for the user: the embedded data, or guessed columns."""
    if recipe.train is None:
        say(f"no data given: using the embedded {data.name(recipe.task)} set")
        return
    for table in (tables.train, tables.eval):
        announce_guess(table, say)


def announce_guess(table: Table, say: Callable[[str], None]) -> None:
    """Say aloud which columns were guessed."""
    if table.guessed:
        say(f"{table.source}: {table.input!r} -> {table.target!r} (guessed; name them with --input and --target)")


def _sample(table: Table, count: int | None, seed: int) -> Table:
    """Some rows, drawn by a seed, so that less data is still a fair picture of it."""
    if count is None or count >= len(table.rows):
        return table
    return _with_rows(table, random.Random(f"rows-{seed}").sample(table.rows, count))


def _sample_inputs(table: Table, count: int | None) -> Table:
    """The rows of some inputs: references of one input stay together. The same ones for every seed."""
    inputs = [row.input for row in grouped(table.rows)]
    if count is None or count >= len(inputs):
        return table
    chosen = set(random.Random("eval-rows").sample(inputs, count))
    return _with_rows(table, [row for row in table.rows if row.input in chosen])


def _with_rows(table: Table, rows: list[Row]) -> Table:
    return replace(table, rows=rows, fingerprint=fingerprint(rows))


def task_of(recipe: Recipe, method: Method) -> Task:
    """The recipe's task; methods without training answer in words, since they have no head to train."""
    options = recipe.section(recipe.task)
    if not method.trainable and recipe.task == "classify":
        options = {**options, "verbalize": True}
    return registry.make(recipe.task, **options)


def prepare(
    recipe: Recipe,
    task: Task,
    tables: Tables,
    base: PreTrainedModel | None = None,
    tokenizer: Any = None,
) -> Prepared:
    """Check the data against the task, then load tokenizer and base, if they are not given."""
    task.prepare(tables.train.rows)
    task.check(tables.eval.rows)
    if base is not None:
        if tokenizer is None:
            raise GraftuneError(
                "a base given as a model needs its tokenizer",
                received="tokenizer=None",
                expected="the tokenizer that belongs to it",
                do="pass tokenizer=…, or the name of the base",
            )
        return Prepared(base, tokenizer, task, tables)
    tokenizer = load_tokenizer(recipe.base)
    base = load_base(recipe.base, task, tokenizer, recipe.precision, recipe.seed, recipe.quantize)
    return Prepared(base, tokenizer, task, tables)


def template_of(method: Method, task: Task, rows: list[Row], seed: int) -> Template:
    """The method's template, with its solved examples in front."""
    text = method.template.replace("{instruction}", Template.literal(task.instruction))
    if method.shots:
        if method.shots > len(rows):
            raise GraftuneError(
                "there are not that many solved examples",
                received=f"{method.shots} examples asked of {len(rows)} training rows",
                expected=f"at most {len(rows)}",
            )
        chosen = random.Random(f"shots-{seed}").sample(rows, method.shots)
        text = Template.literal(task.demonstrations(chosen)) + text
    return Template(text)
