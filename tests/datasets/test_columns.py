"""Columns: what is recognised without a name, and what is said of the rest."""

from __future__ import annotations

import pytest

from graftune.datasets.columns import PAIRS, TEXT, Columns, not_read, pair_of
from graftune.datasets.values import located_answers
from graftune.errors import GraftuneError


@pytest.mark.parametrize("pair", PAIRS)
def test_the_first_of_a_pair_is_the_input_and_no_target_is_taken_from_it(pair):
    columns = ["idx", pair[1].title(), pair[0], "label"]
    assert pair_of(columns) == (pair[0], pair[1].title())
    assert TEXT.choose(columns, None, None) == (pair[0], "label", True)
    assert TEXT.choose_input(columns, None) == pair[0]


def test_a_pair_gives_way_to_what_is_named():
    columns = ["sentence1", "sentence2", "label"]
    assert TEXT.choose(columns, "sentence2", None) == ("sentence2", "label", True)
    assert TEXT.choose(columns, "sentence1", "sentence2") == ("sentence1", "sentence2", False)
    assert pair_of(["text1", "text"]) is None


def test_columns_that_are_usual_for_a_task_stay_so():
    squad = Columns(("question",), ("answers",), target=located_answers)
    assert squad.choose(["id", "title", "context", "question", "answers"], None, None)[:2] == ("question", "answers")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (["id", "premis", "hypo", "gold_label"], "--input premis --target gold_label"),
        (["question1", "question2", "is_duplicate"], ": --target is_duplicate"),
        (["my text", "y"], "--input 'my text' --target y"),
        (["a"], "--input a --target COLUMN"),
    ],
)
def test_the_error_shows_the_line_to_type(columns, line):
    with pytest.raises(GraftuneError) as caught:
        TEXT.choose(columns, None, None)
    assert line in str(caught.value)


def test_columns_that_nothing_reads_are_named_unless_they_count_rows():
    columns = ["id", "idx", "__index_level_0__", "Unnamed: 0", "", "instruction", "input", "output", "identity"]
    assert not_read(columns, ["instruction", "output"]) == ["input", "identity"]
