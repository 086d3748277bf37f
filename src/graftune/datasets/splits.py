"""A part of the training rows held out for evaluation, and rows that both sides have."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from graftune.datasets.lazy import AT_ONCE, Row, Rows
from graftune.datasets.rows import Table, content
from graftune.errors import GraftuneError

Key = Callable[[Row], Any]


def input_of(row: Row) -> Any:
    """What two rows share that are the same question."""
    return row.input


def split_off(
    table: Table, share: float, seed: int, stratify: Key | None = None, key: Key = input_of
) -> tuple[Table, Table]:
    """The table without `share` of its rows, and the table of these rows; one seed makes one split.

    Rows of one input (`key`) stay on one side. With `stratify`, a row's class, each class gives its share, as
    nearly as whole inputs allow; an input counts for the class of its first row, and a class with one input stays
    in training. Both tables keep the order of the rows.

    Raises GraftuneError for a share that is not between 0 and 1, and for fewer than two inputs.
    """
    if not 0 < share < 1:
        raise GraftuneError(
            "the share of rows to hold out is not between 0 and 1", received=share, expected="0 < share < 1"
        )
    keys, classes = _hashed(table.rows, stratify, key)
    _, firsts, groups, sizes = numpy.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise GraftuneError(
            "the rows cannot be split: all have the same input",
            received=f"{len(keys)} row{'s' if len(keys) > 1 else ''} of {table.source}",
            expected="two inputs or more",
            do="give the evaluation data: --eval FILE",
        )
    # Groups in order of their first rows, so that the split does not hang on the values of the hashes.
    order = numpy.argsort(firsts)
    held = numpy.zeros(len(sizes), bool)
    strata = [order[classes[firsts[order]] == one] for one in range(int(classes.max()) + 1)]
    strata = [members for members in strata if len(members) > 1] or [order]
    random = numpy.random.default_rng(seed)
    for members, quota in zip(strata, _quotas([int(sizes[own].sum()) for own in strata], share), strict=True):
        shuffled = random.permutation(members)[:-1]  # the last one stays, so that training knows the class
        held[shuffled[_fitting(sizes[shuffled], quota)]] = True
    if not held.any():
        held[random.choice(max(strata, key=len))] = True
    return _kept(table, ~held[groups]), _kept(table, held[groups])


def duplicates_between(train: Table, eval: Table, key: Key = input_of) -> int:
    """How many evaluation rows have an input (`key`) that training rows have too; only evaluation rows are held."""
    asked, counts = numpy.unique(_hashed(eval.rows, None, key)[0], return_counts=True)
    known = numpy.zeros(len(asked), bool)
    for start in range(0, len(train.rows), AT_ONCE):
        known |= numpy.isin(asked, _hashed(train.rows[start : start + AT_ONCE], None, key)[0])
    return int(counts[known].sum())


def _hashed(rows: Iterable[Row], stratify: Key | None, key: Key) -> tuple[numpy.ndarray, numpy.ndarray]:
    """uint64 (rows,): a hash of what each row asks; int64 (rows,): the number of its class, in order of appearance."""
    keys, classes = array.array("Q"), array.array("q")
    numbers: dict[bytes, int] = {}
    for row in rows:
        keys.append(int.from_bytes(hashlib.blake2b(content(key(row)), digest_size=8).digest(), "little"))
        name = b"" if stratify is None else content(stratify(row))
        classes.append(numbers.setdefault(name, len(numbers)))
    return numpy.frombuffer(keys, numpy.uint64), numpy.frombuffer(classes, numpy.int64)


def _quotas(sizes: list[int], share: float) -> list[int]:
    """Rows that each class gives: whole parts of its share, then the largest remainders up to the share of all."""
    exact = [share * size for size in sizes]
    quotas = [int(part) for part in exact]
    missing = max(1, round(share * sum(sizes))) - sum(quotas)
    by_remainder = sorted(range(len(sizes)), key=lambda one: (quotas[one] - exact[one], one))
    for one in by_remainder[: max(0, missing)]:
        quotas[one] += 1
    return quotas


def _fitting(sizes: numpy.ndarray, quota: int) -> numpy.ndarray:
    """bool (groups,): the groups, taken one after the other, that do not lead beyond the quota."""
    chosen = numpy.zeros(len(sizes), bool)
    taken = 0
    for place, size in enumerate(sizes.tolist()):
        if taken == quota:
            break
        if taken + size <= quota:
            chosen[place] = True
            taken += size
    return chosen


def _kept(table: Table, chosen: numpy.ndarray) -> Table:
    places = numpy.flatnonzero(chosen)
    if isinstance(table.rows, Rows):
        return table.keep(table.rows.select(places))
    return table.keep([table.rows[place] for place in places.tolist()])
