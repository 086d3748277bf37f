"""Preparation: data read and checked, then the base loaded, once for any number of methods."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from graftune.bases.loading import load_base, load_processor
from graftune.datasets import samples
from graftune.datasets.rows import Row, Table, described, grouped, read
from graftune.errors import GraftuneError, unknown
from graftune.methods.method import Method
from graftune.tasks import registry
from graftune.tasks.task import Task
from graftune.templates.template import Template, composed
from graftune.training.recipe import Recipe


@dataclass(frozen=True)
class Tables:
    """The rows to train on and to evaluate on."""

    train: Table
    eval: Table


@dataclass(frozen=True)
class Prepared:
    """A base with its tokenizer (or image processor), a task that knows its labels, and the rows."""

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
    task = registry.make(recipe.task, **recipe.section(recipe.task))
    train = _read(recipe, task, recipe.train or samples.path("train", recipe.task))
    train = _sample(train, recipe.train_rows, recipe.seed)
    task.prepare(train.rows)
    return Tables(_checked(train, task, recipe), read_eval(recipe, task))


def _checked(table: Table, task: Task, recipe: Recipe) -> Table:
    """The rows that the task can use.

    Raises GraftuneError for a column of the task's template that is not there, and where more than `bad_rows` of the
    rows cannot be used.
    """
    for name in Template(task.template).columns:
        if table.rows and name not in table.rows[0].texts:
            raise unknown("template column", name, table.rows[0].texts)
    return table.without(task.problems(table.rows), recipe.bad_rows, task.good_row)


def _read(recipe: Recipe, task: Task, source: Any) -> Table:
    return read(source, recipe.input, recipe.target, task.columns, recipe.bad_rows)


def read_eval(recipe: Recipe, task: Task, *, learn: bool = False) -> Table:
    """The evaluation data of a recipe, as far as the task can use it. Raises GraftuneError for bad data.

    With `learn` the task learns from it, where there is no training data, what it has to know.
    """
    table = _sample_inputs(_read(recipe, task, recipe.eval or samples.path("dev", recipe.task)), recipe.eval_rows)
    if learn:
        task.prepare(table.rows)
    return _checked(table, task, recipe)


def announce(tables: Tables, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say aloud what was chosen for the user: the embedded data, or guessed columns."""
    if recipe.train is None:
        say(f"no data given: using the embedded {samples.name(recipe.task)} set")
        return
    for table in (tables.train, tables.eval):
        announce_guess(table, say)


def announce_guess(table: Table, say: Callable[[str], None]) -> None:
    """Say aloud which columns were guessed, and which lines were left out."""
    if table.guessed:
        say(f"{table.source}: {table.input!r} -> {table.target!r} (guessed; name them with --input and --target)")
    if table.left_out:
        count = f"{len(table.left_out)} bad line{'s' * (len(table.left_out) > 1)} left out"
        say("\n  ".join([f"{table.source}: {count}", *described(table.left_out)]))


def _sample(table: Table, count: int | None, seed: int) -> Table:
    """Some rows, drawn by a seed, so that less data is still a fair picture of it."""
    if count is None or count >= len(table.rows):
        return table
    return table.keep(random.Random(f"rows-{seed}").sample(table.rows, count))


def _sample_inputs(table: Table, count: int | None) -> Table:
    """The rows of some inputs: references of one input stay together. The same ones for every seed."""
    inputs = [row.input for row in grouped(table.rows)]
    if count is None or count >= len(inputs):
        return table
    chosen = set(random.Random("eval-rows").sample(inputs, count))
    return table.keep([row for row in table.rows if row.input in chosen])


def task_of(recipe: Recipe, method: Method) -> Task:
    """The recipe's task; methods without training answer in words, since they have no head to train."""
    if not method.trainable and recipe.task == "classify":
        return registry.make("cloze", **{"words": "first", **recipe.section("cloze")})
    return registry.make(recipe.task, **recipe.section(recipe.task))


def prepare(
    recipe: Recipe,
    task: Task,
    tables: Tables,
    base: PreTrainedModel | None = None,
    tokenizer: Any = None,
) -> Prepared:
    """Check the data against the task, then load tokenizer and base, if they are not given."""
    task.prepare(tables.train.rows)
    if base is not None:
        if tokenizer is None:
            raise GraftuneError(
                "a base given as a model needs its tokenizer",
                received="tokenizer=None",
                expected="the tokenizer that belongs to it",
                do="pass tokenizer=…, or the name of the base",
            )
    else:
        tokenizer = load_processor(recipe.base, task)
        base = load_base(recipe.base, task, tokenizer, recipe.precision, recipe.seed, recipe.quantize)
    task.bind(base.config, tokenizer)
    # Once more, since some problems show only with the base's tokenizer.
    return Prepared(base, tokenizer, task, Tables(*(_checked(t, task, recipe) for t in (tables.train, tables.eval))))


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
        text = Template.literal(task.demonstrations(chosen)) + text
    return Template(text)
