"""The three splits of a comparison: rows to train on, rows to choose a rate and a stopping point by, rows to report.

The reported rows are the user's evaluation data, the same for every trial, and no choice is made by them. The others
are drawn from the training rows by a trial's seed, the same way for every candidate, so that trials are pairs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from graftune.config.recipe import Recipe
from graftune.datasets.rows import Row, Table, content
from graftune.datasets.splits import split_off
from graftune.errors import GraftuneError, unknown
from graftune.tasks import registry
from graftune.training.tables import Tables, key_of, label_of, read_eval, read_tables, sample

SHARE: Final = 0.1  # of the training rows, to choose by
LEAST: Final = 100  # rows to choose by
MOST: Final = 1000
FEW: Final = 500  # training rows below which every row is chosen by, in one of the folds
FOLDS: Final = 5
UNSEEN: Final = 0.2  # of the groups


def chosen_by(count: int) -> int:
    """How many of that many training rows are held out to choose by, at a time."""
    return min(MOST, max(LEAST, round(SHARE * count))) if count >= FEW else round(count / FOLDS)


def held_out(table: Table, column: str, seed: int) -> frozenset[str]:
    """A fifth of the groups that a column names, at least one.

    Raises GraftuneError for a column that is not there, and where there are fewer than two groups.
    """
    if column not in table.columns:
        raise unknown("column of groups", column, table.columns)
    names = sorted({row.columns.get(column, "") for row in table.rows})
    if len(names) < 2:
        raise GraftuneError(
            "there are no groups to tell apart",
            received=f"{len(names)} value{'s' * (len(names) != 1)} in the column {column!r}",
            expected="two or more",
            do="name a column with several values, such as the user, the source or the language",
        )
    return frozenset(random.Random(f"groups-{seed}").sample(names, max(1, round(UNSEEN * len(names)))))


@dataclass(frozen=True)
class Splits:
    """All rows that may be trained on, and those to report on, once for a comparison."""

    tables: Tables
    recipe: Recipe
    unseen: frozenset[str] = frozenset()
    """Groups that are never trained on."""
    test: Table | None = None

    @classmethod
    def read(cls, recipe: Recipe) -> Splits:
        """The data of a recipe. Raises GraftuneError for bad data."""
        tables = read_tables(recipe.model_copy(update={"train_rows": None}))
        test = None
        if recipe.compare.test is not None:
            task = registry.make(recipe.task, **recipe.section(recipe.task))
            test = read_eval(recipe.model_copy(update={"eval": recipe.compare.test}), tables.settle(task))
        if recipe.compare.group is None:
            return cls(tables, recipe, test=test)
        unseen = held_out(tables.train, recipe.compare.group, recipe.seed)
        kept = [row for row in tables.train.rows if row.columns.get(recipe.compare.group, "") not in unseen]
        return cls(replace(tables, train=tables.train.keep(kept)), recipe, unseen, test)

    def check(self) -> None:
        """Raise GraftuneError for fewer different inputs than there are folds to choose by."""
        key, found = self._key, set()
        for row in self.tables.train.rows:
            found.add(content(key(row)))
            if len(found) >= FOLDS:
                return
        raise GraftuneError(
            "there are too few rows to choose a learning rate by",
            received=f"{len(found)} different inputs in {self.tables.train.source}",
            expected=f"at least {FOLDS}, of which each is held out once",
            do="give more rows, or take the usual rates: --effort none",
        )

    @cached_property
    def _key(self) -> Callable[[Row], Any]:
        return key_of(self.tables.settle(registry.make(self.recipe.task, **self.recipe.section(self.recipe.task))))

    def is_seen(self, row: Row) -> bool:
        """Whether rows of this one's group are trained on."""
        group = self.recipe.compare.group
        return group is None or row.columns.get(group) in self.groups

    @cached_property
    def groups(self) -> frozenset[str]:
        """The groups that are trained on."""
        group = self.recipe.compare.group
        return frozenset(row.columns.get(group, "") for row in self.tables.train.rows) if group else frozenset()

    def to_train(self, seed: int, rows: int | None = None) -> Table:
        """The rows that a trial with this seed may use, `rows` of them or the recipe's `train_rows`."""
        return sample(self.tables.train, rows or self.recipe.train_rows, seed)

    def to_choose(self, seed: int, rows: int | None = None) -> Iterator[tuple[Table, Table]]:
        """Rows to train on and rows to choose by: one pair, or, of few rows, a pair for each fold."""
        table = self.to_train(seed, rows)
        count = len(table.rows)
        if count >= FEW:
            yield self._split(table, chosen_by(count) / count, seed)
            return
        rest = table
        for left in range(FOLDS, 0, -1):
            rest, held = self._split(rest, 1 / left, seed) if left > 1 else (rest, rest)
            lines = {row.line for row in held.rows}
            yield table.keep([row for row in table.rows if row.line not in lines]), held

    def pair(self, seed: int, rows: int | None = None) -> tuple[Table, Table]:
        """Rows to train on and rows to find the best checkpoint by: the first of `to_choose`."""
        return next(iter(self.to_choose(seed, rows)))

    def with_tables(self, train: Table, held: Table) -> Tables:
        """Tables in which `held` rows stand for the evaluation data."""
        return replace(self.tables, train=train, eval=held)

    def _split(self, table: Table, share: float, seed: int) -> tuple[Table, Table]:
        return split_off(table, share, seed, label_of, self._key)
