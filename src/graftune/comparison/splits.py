"""The three splits of a comparison: rows to train on, rows to choose a rate and a stopping point by, rows to report.

The reported rows are the user's evaluation data, the same for every trial, and no choice is made by them. The others
are drawn from the training rows by a trial's seed, the same way for every candidate, so that trials are pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from graftune.datasets.rows import Table
from graftune.datasets.splits import split_off
from graftune.tasks import registry
from graftune.training.recipe import Recipe
from graftune.training.tables import Tables, key_of, label_of, read_tables, sample

SHARE: Final = 0.1  # of the training rows, to choose by
LEAST: Final = 100  # rows to choose by
MOST: Final = 1000
FEW: Final = 500  # training rows below which every row is chosen by, in one of the folds
FOLDS: Final = 5


def chosen_by(count: int) -> int:
    """How many of that many training rows are held out to choose by, at a time."""
    return min(MOST, max(LEAST, round(SHARE * count))) if count >= FEW else round(count / FOLDS)


@dataclass(frozen=True)
class Splits:
    """All rows that may be trained on, and those to report on, once for a comparison."""

    tables: Tables
    recipe: Recipe

    @classmethod
    def read(cls, recipe: Recipe) -> Splits:
        """The data of a recipe. Raises GraftuneError for bad data."""
        return cls(read_tables(recipe.model_copy(update={"train_rows": None})), recipe)

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
        task = self.tables.settle(registry.make(self.recipe.task, **self.recipe.section(self.recipe.task)))
        return split_off(table, share, seed, label_of, key_of(task))
