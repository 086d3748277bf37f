"""The embedded table-to-text set: deterministic, true to its tables, plain, split cleanly."""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import make_samples
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_data import boats, sentences, splits, table_to_text

from graftune.datasets import samples
from graftune.errors import GraftuneError

seeds = st.integers(min_value=0, max_value=10**6)


def digest(split: str) -> str:
    return hashlib.sha256(json.dumps(table_to_text(split)).encode()).hexdigest()[:16]


def names_of(rows: list[dict[str, str]]) -> set[str]:
    return {boats.parse(row["table"])["name"] for row in rows}


def assert_plain_english(text: str) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z',. ]*\.", text), text
    assert not re.search(r"  | [,.]|,[^ ]|\.[^ ]|,\.|\.\.|\.$\s|[{}\[\]|]", text), text
    assert 1 <= text.count(".") <= 2, text
    assert all(sentence[0].isupper() for sentence in text[:-1].split(". ")), text
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
    assert not re.search(r"\b(\w+) \1\b", text), f"a word twice in a row: {text}"
    assert text.lower().count("on board") <= 1, text


def assert_says_exactly(record: dict[str, str], text: str) -> None:
    for field, value in record.items():
        assert any(form.lower() in text.lower() for form in sentences.promised(field, value)), (field, text)
    absent = {
        "price": r"shilling|pence|penny|pound|crown|free|fare|price|ticket|costs|charges",
        "seats": r"passenger|people|person|guest|seat|room|space",
        "serves": r"serve|offers|you can have",
        "leaves": r"o'clock|half past|quarter|noon|sunset|in the (morning|afternoon)",
    }
    for field, words in absent.items():
        assert field in record or not re.search(words, text), (field, text)


def test_defaults_are_two_thousand_rows_and_sixty_tables_with_three_texts_each() -> None:
    assert len(table_to_text("train")) == 2000
    dev = table_to_text("dev")
    assert len(dev) == 180
    groups = [dev[i : i + 3] for i in range(0, 180, 3)]
    assert all(len({row["table"] for row in group}) == 1 for group in groups)
    assert all(len({row["text"] for row in group}) == 3 for group in groups)
    assert len({group[0]["table"] for group in groups}) == 60


def test_rows_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "import json, sys; sys.path.insert(0, sys.argv[1]); import sample_data as d; "
    code += "sys.stdout.write(json.dumps(d.table_to_text('dev')))"
    tools = str(Path(splits.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", code, tools], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == table_to_text("dev")


def test_rows_are_those_that_published_numbers_were_measured_on() -> None:
    assert (digest("train"), digest("dev")) == ("5980b126bd4e4743", "5aecbbed9664b2c9")


@given(seeds, st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_fewer_rows_are_the_beginning_of_more(seed: int, rows: int) -> None:
    assert table_to_text("train", rows, seed) == table_to_text("train", 70, seed)[:rows]


def test_seeds_differ() -> None:
    assert table_to_text("train", 50, 0) != table_to_text("train", 50, 1)


@given(seeds, seeds)
@settings(max_examples=20, deadline=None)
def test_no_dev_table_occurs_in_train_under_any_seeds(train_seed: int, dev_seed: int) -> None:
    train = table_to_text("train", 300, train_seed)
    dev = table_to_text("dev", 60, dev_seed)
    assert not {row["table"] for row in train} & {row["table"] for row in dev}


def test_a_share_of_dev_names_is_unseen_and_a_share_is_seen() -> None:
    train, dev = table_to_text("train"), table_to_text("dev")
    unseen = [row for row in dev if boats.parse(row["table"])["name"] not in names_of(train)]
    assert 0.25 < len(unseen) / len(dev) < 0.65


def test_train_tables_are_distinct_and_nearly_all_texts_are() -> None:
    train = table_to_text("train")
    assert len({row["table"] for row in train}) == 2000
    assert len({row["text"] for row in train}) > 1800


def test_texts_have_the_length_of_a_sentence_or_two() -> None:
    words = [len(row["text"].split()) for row in table_to_text("train")]
    assert 15 <= statistics.mean(words) <= 35
    assert max(words) <= 60


@given(seeds, st.sampled_from(["train", "dev"]))
@settings(max_examples=25, deadline=None)
def test_texts_say_exactly_their_tables_in_plain_english(seed: int, split: str) -> None:
    for row in table_to_text(split, 90, seed):
        record = boats.parse(row["table"])
        assert boats.table(record) == row["table"]
        assert 3 <= len(record) <= 6
        assert list(record) == [field for field in boats.FIELDS if field in record]
        assert record.get("from") != record.get("to") or "from" not in record
        assert_says_exactly(record, row["text"])
        assert_plain_english(row["text"])


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_one_passenger_is_singular(seed: int) -> None:
    text = sentences.text({"name": "Blue Swan", "seats": "1", "serves": "apple pies"}, random.Random(seed))
    assert re.search(r"one (passenger|person|guest)\b", text)
    assert "apple pies is" not in text
    assert "seats for" not in text


def test_every_value_and_every_field_occurs_in_training() -> None:
    cells = {cell for row in table_to_text("train") for cell in row["table"].split(" | ")}
    for kind in boats.KINDS:
        assert f"type : {kind}" in cells
    for number in boats.NUMBERS:
        assert f"seats : {number}" in cells


@pytest.mark.parametrize("rows", [-1, splits.MOST_ROWS + 1])
def test_an_unusable_number_of_rows_is_an_error(rows: int) -> None:
    with pytest.raises(GraftuneError, match="number of rows"):
        table_to_text("train", rows)


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(GraftuneError, match="did you mean 'train'"):
        table_to_text("trian")  # type: ignore[arg-type]


def test_the_shipped_files_are_what_the_grammar_writes(tmp_path: Path) -> None:
    make_samples.write(tmp_path)
    written = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*.jsonl")}
    shipped = samples.path("train").parents[1]
    assert written == {file.relative_to(shipped): file.read_bytes() for file in shipped.rglob("*.jsonl")}
    assert len(written) == 4
