"""The rows to train on and to evaluate on, as a recipe names them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftune.config.recipe import Recipe
from graftune.datasets import samples, values
from graftune.datasets.columns import not_read, pair_of
from graftune.datasets.rows import Row, Rows, Table, content, described, read
from graftune.datasets.splits import duplicates_between, split_off
from graftune.errors import GraftuneError, unknown
from graftune.tasks import registry
from graftune.tasks.classify import Classify
from graftune.tasks.multi_label import MultiLabel
from graftune.tasks.regress import Regress
from graftune.tasks.task import Task
from graftune.templates.template import Template

READS_PAIRS = (Classify, MultiLabel, Regress)  # tasks that judge two texts as readily as one
SHARE = 0.1  # of the training rows to evaluate on, where no evaluation data is given


@dataclass(frozen=True)
class Tables:
    """The rows to train on and to evaluate on.

    `given` are all rows that were given to train on, before some were split off or left out: they show which labels
    there are.
    """

    train: Table
    eval: Table
    given: Table

    def settle(self, task: Task) -> Task:
        """The task fitted to the rows that were given to train on."""
        return with_pair(task, self.given).fit(self.given.rows)


def read_tables(recipe: Recipe) -> Tables:
    """The data of a recipe; without any, the sample data. Raises GraftuneError for bad data."""
    if recipe.train is None and recipe.eval is not None:
        raise GraftuneError(
            "there is evaluation data, but nothing to train on",
            received=f"eval={recipe.eval}",
            expected="--train FILE as well, or neither (then sample data is used)",
            do="give --train FILE",
        )
    task = registry.make(recipe.task, **recipe.section(recipe.task))
    given = train = _read(recipe, task, samples.path("train", recipe.task) if recipe.train is None else recipe.train)
    share = eval_share(recipe)
    if share is None:
        held = _read(recipe, task, samples.path("dev", recipe.task) if recipe.eval is None else recipe.eval)
    else:
        train, held = split_off(train, share, recipe.seed, label_of, key_of(with_pair(task, train)))
    train = sample(train, recipe.train_rows, recipe.seed)
    tables = Tables(train, _sample_inputs(held, recipe.eval_rows), given)
    fitted = tables.settle(task)
    return Tables(checked(tables.train, fitted, recipe), checked(tables.eval, fitted, recipe), given)


def eval_share(recipe: Recipe) -> float | None:
    """The share of the training rows to evaluate on; None where there is data for it.

    Raises GraftuneError for a share that leaves nothing on one of the sides.
    """
    if recipe.train is None:
        return None
    if recipe.eval is None:
        return SHARE
    try:
        share = float(recipe.eval)
    except ValueError:
        return None
    if Path(recipe.eval).exists():
        return None
    if not 0 < share < 1:
        raise GraftuneError(
            "bad share of rows to evaluate on",
            received=f"eval={recipe.eval}",
            expected="a number between 0 and 1, such as 0.1, or a file",
            do="give --eval 0.1 or --eval FILE",
        )
    return share


def label_of(row: Row) -> str | None:
    """What rows are stratified by: their label, where the target is one word or so; other targets are all alike."""
    return row.target if isinstance(row.target, str) and len(row.target) < 64 else None


def key_of(task: Task) -> Callable[[Row], Any]:
    """What two rows share that are the same question: all that the task reads of them."""
    names = [name for name in task.reads if name != "input"]
    return lambda row: (row.input, *(row.columns.get(name) for name in names))


def read_eval(recipe: Recipe, task: Task) -> Table:
    """The evaluation data of a recipe, as far as the task can use it. Raises GraftuneError for bad data."""
    table = _read(recipe, task, samples.path("dev", recipe.task) if recipe.eval is None else recipe.eval)
    return checked(_sample_inputs(table, recipe.eval_rows), task, recipe)


def checked(table: Table, task: Task, recipe: Recipe) -> Table:
    """The rows that the fitted task can use.

    Raises GraftuneError for a column of the task's template that is not there, and where more than `bad_rows` of the
    rows cannot be used.
    """
    first = next(iter(table.rows), None)
    for name in Template(task.template).columns:
        if first is not None and name not in first.texts:
            raise unknown("template column", name, first.texts)
    if type(task).problem is Task.problem:
        return table  # no need to look at every row
    problems = {row.line: problem for row in table.rows if (problem := task.problem(row))}
    return table.without(problems, recipe.bad_rows, task.expectation)


def with_pair(task: Task, table: Table) -> Task:
    """The task with both columns of a usual pair, such as premise and hypothesis, where no columns were named."""
    pair = pair_of(table.columns) if table.guessed else None
    if pair is None or table.input != pair[0] or not isinstance(task, READS_PAIRS) or task.pattern != "{input}":
        return task
    return replace(task, pattern=f"{{{pair[0]}}}{{sep}}{{{pair[1]}}}")


def _read(recipe: Recipe, task: Task, source: str | Path) -> Table:
    return read(source, recipe.input, recipe.target, task.columns, recipe.bad_rows)


def announce(tables: Tables, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say aloud what was chosen for the user: the sample data, guessed columns, the rows to evaluate on."""
    if recipe.train is None:
        say(f"no data given: using the embedded {samples.name(recipe.task)} set")
        return
    task = tables.settle(registry.make(recipe.task, **recipe.section(recipe.task)))
    share = eval_share(recipe)
    if share is not None:
        held = len(tables.eval.rows)
        percent = f"{held / (held + len(tables.train.rows)):.0%}"
        how = f"{held:,} of its rows ({percent}) are split off to evaluate on"
        say(f"{tables.train.source}: {how}, by seed {recipe.seed}; --eval FILE names others")
    for table in (tables.train,) if share is not None else (tables.train, tables.eval):
        announce_table(table, task, say)
    if copies := duplicates_between(tables.train, tables.eval, key_of(task)):
        say(f"{copies:,} of {len(tables.eval.rows):,} evaluation rows have an input that is trained on")


def announce_table(table: Table, task: Task, say: Callable[[str], None]) -> None:
    """Say aloud which columns were guessed, what was not read, and which lines were left out."""
    if table.guessed:
        names = dict.fromkeys((table.input, *(name for name in task.reads if name in table.columns)))
        read = ", ".join(map(repr, names))
        say(f"{table.source}: {read} -> {table.target!r} (guessed; name them with --input and --target)")
    if rest := not_read(table.columns, (table.input, table.target, str(table.second), *task.reads)):
        say(f"{table.source}: columns not read: {', '.join(rest)}")
    for remark in (*table.remarks, *label_remarks(table, task)):
        say(f"{table.source}: {remark}")
    if table.left_out:
        count = f"{len(table.left_out)} bad line{'s' * (len(table.left_out) > 1)} left out"
        say("\n  ".join([f"{table.source}: {count}", *described(table.left_out)]))


def label_remarks(table: Table, task: Task) -> list[str]:
    """What was done about the spelling of labels, and what may be meant as one label but is not taken so."""
    if task.columns.reader(table.target, target=True) is not values.label:
        return []
    spelled = {row.columns.get(table.target): row.target for row in table.rows}
    remarks = []
    if merged := [(raw, label) for raw, label in spelled.items() if raw is not None and raw != label]:
        shown = ", ".join(f"{raw!r} as {label!r}" for raw, label in merged[:3])
        remarks.append(f"{len(merged)} labels are read in their usual spelling: {shown}")
    cases: dict[str, list[str]] = {}
    for label in sorted(set(spelled.values())):
        cases.setdefault(label.lower(), []).append(label)
    if alike := [labels for labels in cases.values() if len(labels) > 1]:
        remarks.append("labels that differ only by case are different labels: " + ", ".join(map(repr, alike[0])))
    return remarks


def sample(table: Table, count: int | None, seed: int) -> Table:
    """Some rows, drawn by a seed, so that less data is still a fair picture of it."""
    if count is None or count >= len(table.rows):
        return table
    places = random.Random(f"rows-{seed}").sample(range(len(table.rows)), count)
    rows = table.rows
    return table.keep(rows.select(places) if isinstance(rows, Rows) else [rows[place] for place in places])


def _sample_inputs(table: Table, count: int | None) -> Table:
    """The rows of some inputs: references of one input stay together. The same ones for every seed."""
    if count is None:
        return table
    inputs = list(dict.fromkeys(content(row.input) for row in table.rows))
    if count >= len(inputs):
        return table
    chosen = set(random.Random("eval-rows").sample(inputs, count))
    return table.keep([row for row in table.rows if content(row.input) in chosen])
