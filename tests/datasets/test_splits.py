"""Held-out rows: a share of each class, no input on both sides, one seed one split."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftune.datasets import Row, Rows, Table, read
from graftune.datasets.splits import duplicates_between, split_off
from graftune.errors import GraftuneError


def table(pairs) -> Table:
    return Table([Row(a, b, line) for line, (a, b) in enumerate(pairs, 1)], "input", "target", False, "here")


def label(row: Row) -> str:
    return row.target


@given(
    st.lists(st.tuples(st.integers(0, 30).map(str), st.sampled_from("abc")), min_size=2),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_both_sides_have_all_rows_once_in_order_and_no_input_twice(pairs, share, seed):
    whole = table(pairs)
    if len({a for a, _ in pairs}) < 2:
        with pytest.raises(GraftuneError, match="same input"):
            split_off(whole, share, seed)
        return
    for stratify in (None, label):
        train, held = split_off(whole, share, seed, stratify)
        assert sorted([*train.rows, *held.rows], key=lambda row: row.line) == whole.rows
        assert [row.line for row in held.rows] == sorted(row.line for row in held.rows)
        assert train.rows and held.rows
        assert not {row.input for row in train.rows} & {row.input for row in held.rows}
        assert duplicates_between(train, held) == 0
        again = split_off(whole, share, seed, stratify)
        assert (again[0].rows, again[1].rows) == (train.rows, held.rows)


@given(st.lists(st.sampled_from("abcd"), min_size=20, max_size=200), st.integers(0, 5))
def test_each_class_gives_its_share(labels, seed):
    whole = table([(str(number), name) for number, name in enumerate(labels)])
    counts = Counter(labels)
    train, held = split_off(whole, 0.2, seed, label)
    given_up = Counter(row.target for row in held.rows)
    for name, count in counts.items():
        if count >= 2:
            assert abs(given_up[name] - 0.2 * count) < 1
    assert set(counts) == {row.target for row in train.rows}
    several = sum(count for count in counts.values() if count >= 2)
    assert len(held.rows) == round(0.2 * several)


def test_seeds_make_other_splits():
    whole = table([(str(number), "a") for number in range(100)])
    assert len({tuple(row.line for row in split_off(whole, 0.1, seed)[1].rows) for seed in range(5)}) == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(GraftuneError, match="between 0 and 1"):
        split_off(table([("a", "b"), ("c", "d")]), share, 0)


def test_duplicates_are_evaluation_rows_that_training_has():
    train = table([("a", "1"), ("a", "2"), (("x", "y"), "3")])
    assert duplicates_between(train, table([("a", "9"), ("b", "1"), (("x", "y"), "3"), ("a", "1")])) == 3
    assert duplicates_between(train, table([("a", "9"), ("a", "1")]), key=lambda row: (row.input, row.target)) == 1


def test_rows_of_a_file_stay_rows_of_the_file(tmp_path):
    lines = [json.dumps({"input": str(number), "target": "ab"[number % 2]}) for number in range(50)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    train, held = split_off(read(tmp_path / "x.jsonl"), 0.2, 3, label)
    assert isinstance(train.rows, Rows) and isinstance(held.rows, Rows)
    assert Counter(row.target for row in held.rows) == {"a": 5, "b": 5}
    assert train.fingerprint != held.fingerprint
