"""Reading rows: what was written is what is read, and what is wrong is named by its line."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datasets
from graftune.datasets import values
from graftune.datasets.columns import TEXT, Columns
from graftune.datasets.lazy import RowMaker
from graftune.datasets.rows import Row, fingerprint, grouped, read
from graftune.errors import GraftuneError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
# csv cannot tell a lone carriage return from a line break of its own, and stops at NUL
plain = texts.filter(lambda text: not set(text) & set("\r\0"))
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)
plain_pairs = st.lists(st.tuples(plain, plain), min_size=1, max_size=6)


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def contents(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.input, row.target) for row in rows]


@given(pairs)
def test_jsonl_returns_what_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "x.jsonl"
    write(path, *({"input": a, "target": b} for a, b in rows))
    table = read(path)
    assert contents(table.rows) == rows
    assert [row.line for row in table.rows] == list(range(1, len(rows) + 1))


@given(plain_pairs)
def test_csv_and_parquet_agree_with_jsonl(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("data")
    with (folder / "x.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("source", "target"), *rows])
    columns = {"source": [a for a, _ in rows], "target": [b for _, b in rows]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "x.parquet")
    write(folder / "x.jsonl", *({"source": a, "target": b} for a, b in rows))
    tables = [read(str(folder / name)) for name in ("x.jsonl", "x.csv", "x.parquet")]
    assert [contents(table.rows) for table in tables] == [rows] * 3
    assert len({table.fingerprint for table in tables}) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), texts)))
def test_grouped_keeps_every_target_in_order(rows):
    rows = [Row(a, b, line) for line, (a, b) in enumerate(rows, start=1)]
    groups = grouped(rows)
    assert [group.input for group in groups] == list(dict.fromkeys(row.input for row in rows))
    for group in groups:
        members = [row for row in rows if row.input == group.input]
        assert list(group.references) == [row.target for row in members]
        assert (group.target, group.line) == (members[0].target, members[0].line)
    assert grouped(groups) == groups


@given(pairs, pairs)
def test_fingerprints_are_equal_for_equal_content_only(first, second):
    def digest(rows):
        return fingerprint(Row(a, b, line) for line, (a, b) in enumerate(rows, start=1))

    assert (digest(first) == digest(second)) == (first == second)
    assert len(digest(first)) == 16


def test_fingerprint_ignores_lines():
    assert fingerprint([Row("a", "b", 1)]) == fingerprint([Row("a", "b", 9)])


def test_fingerprints_tell_columns_apart_that_a_template_may_name(tmp_path):
    pair = {"premise": "a", "hypothesis": "b", "label": "c"}
    assert read(write(tmp_path / "x.jsonl", pair)).fingerprint == read(write(tmp_path / "y.jsonl", pair)).fingerprint
    other = read(write(tmp_path / "y.jsonl", {**pair, "hypothesis": "d"})).fingerprint
    assert other != read(tmp_path / "x.jsonl").fingerprint


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.jsonl.gz"])
def test_large_files_are_compared_by_their_bytes(tmp_path, monkeypatch, name):
    def table(*rows, name=name, **options):
        path = write(tmp_path / name.removesuffix(".gz"), *rows)
        if name.endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
        return read(tmp_path / name, **options)

    rows = [f"{n},{n % 2},{n}" for n in range(9)]
    lines = ["input,target,more", *rows]
    if "json" in name:
        lines = [json.dumps(dict(zip(("input", "target", "more"), row.split(","), strict=True))) for row in rows]
    monkeypatch.setattr("graftune.datasets.sources.records.LARGE", 1)
    first = table(*lines)
    seen = [
        first.fingerprint,
        table(*lines[:-1]).fingerprint,
        table(*lines[:-2], lines[-1], lines[-2]).fingerprint,
        table(*lines, target="more").fingerprint,
        table(*lines, columns=Columns(target=values.label)).fingerprint,
        first.keep(first.rows[1:]).fingerprint,
        first.keep(first.rows[::-1]).fingerprint,
    ]
    assert len(set(seen)) == len(seen)
    assert table(*lines).fingerprint == seen[0]
    made = []
    make = RowMaker.__call__
    monkeypatch.setattr(RowMaker, "__call__", lambda self, record: made.append(record) or make(self, record))
    assert fingerprint(first.rows) == seen[0]
    assert len(made) == 1  # the first row, which says that rows are no images


def test_csv_line_numbers_count_lines_of_the_file(tmp_path):
    path = write(tmp_path / "x.csv", 'input,target\n"two\nlines",b\nc,d')
    assert read(path).rows == [Row("two\nlines", "b", 2), Row("c", "d", 4)]


def test_byte_order_mark_numbers_and_a_blank_last_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 1}\r\n{"text": 2.5, "label": 0}\r\n\r\n')
    assert contents(read(path).rows) == [("a", "1"), ("2.5", "0")]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        (["text", "label"], ("text", "label")),
        (["table", "text"], ("table", "text")),
        (["input", "text"], ("input", "text")),
        (["text", "summary"], ("text", "summary")),
        (["id", "Question", "Answer"], ("Question", "Answer")),
        (["zh", "en"], ("en", "zh")),
        (["source", "target"], ("source", "target")),
    ],
)
def test_usual_columns_are_guessed(columns, chosen):
    assert TEXT.choose(columns, None, None) == (*chosen, True)


def test_named_columns_are_taken_and_the_other_is_guessed():
    assert TEXT.choose(["a", "b"], "b", "a") == ("b", "a", False)
    assert TEXT.choose(["a", "text"], "text", "a") == ("text", "a", False)
    assert TEXT.choose(["a", "text"], "a", None) == ("a", "text", True)


def message(*arguments, **options) -> str:
    with pytest.raises(GraftuneError) as caught:
        read(*arguments, **options)
    assert "received:" in str(caught.value)
    assert "what to do:" in str(caught.value)
    return str(caught.value)


def test_wrong_columns(tmp_path):
    path = write(tmp_path / "x.jsonl", {"question": "a", "answer": "b"})
    text = message(path, input="qestion")
    assert "unknown column 'qestion'" in text
    assert "did you mean 'question'?" in text
    assert "one of answer, question" in text
    assert "same column" in message(path, input="answer", target="answer")
    path = write(tmp_path / "y.jsonl", {"foo": "a", "bar": "b"})
    text = message(path)
    assert "cannot guess" in text
    assert "--input foo --target bar" in text
    assert "'foo', 'bar'" in text


def test_missing_files_folders_and_extensions(tmp_path, monkeypatch):
    assert "no such file" in message(tmp_path / "x.jsonl")
    assert "no such file" in message("./nowhere")
    assert "no such file" in message("train.jsonl")
    assert "folder" in message(tmp_path)
    text = message(write(tmp_path / "x.jsnl", "words without columns"))
    assert "unknown file extension '.jsnl'" in text
    assert "did you mean '.jsonl'?" in text


def test_all_bad_lines_are_reported_at_once(tmp_path):
    path = write(
        tmp_path / "x.jsonl",
        {"input": "a", "target": "b"},
        "{broken",
        "",
        "[1]",
        {"input": "", "target": "b"},
        {"input": "a"},
        {"input": "a", "target": ["b"]},
        {"input": "a", "target": None},
        {"input": "\ud800", "target": "x"},
    )
    text = message(path)
    assert "7 bad lines" in text
    for part in ("line 2: broken JSON", "line 4: a JSON list", "line 5: 'input' is empty"):
        assert part in text
    assert "line 6: no 'target'" in text
    assert "line 8" not in text
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"input": "a", "target": ["b"]}, "'target' is a list, not text"),
        ({"input": "a", "target": None}, "no 'target'"),
        ({"input": "a", "target": float("nan")}, "no 'target'"),
        ({"input": " ", "target": " "}, "'input' is empty; 'target' is empty"),
        ({"input": "\ud800", "target": "x"}, "'input' holds half of a surrogate pair"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_one_bad_line(tmp_path, line, problem):
    path = write(tmp_path / "x.jsonl", {"input": "a", "target": "b"}, line)
    text = message(path)
    assert "1 bad line\n" in text
    assert f"line 2: {problem}" in text


def test_a_share_of_bad_lines_is_left_out_and_counted(tmp_path):
    good = [{"input": f"{i}", "target": "b"} for i in range(99)]
    path = write(tmp_path / "x.jsonl", *good, {"input": "a"})
    table = read(path, share=0.01)
    assert (len(table.rows), table.left_out) == (99, {100: "no 'target'"})
    assert "1 bad line" in message(path, share=0.009)
    with pytest.raises(GraftuneError, match=r"1 bad line[\s\S]*even rows"):
        table.without({3: "odd"}, 0.01, "even rows")
    fewer = table.without({3: "odd"}, 0.02, "even rows")
    assert (len(fewer.rows), sorted(fewer.left_out)) == (98, [3, 100])
    assert fewer.fingerprint != table.fingerprint


def test_only_bad_lines_and_no_rows(tmp_path):
    assert "line 1: broken JSON" in message(write(tmp_path / "x.jsonl", "{"))
    assert "no rows" in message(write(tmp_path / "x.jsonl", ""))
    assert "no rows" in message(write(tmp_path / "x.csv", "input,target"))
    assert "no rows" in message(write(tmp_path / "y.csv", ""))


def test_broken_files(tmp_path):
    assert "line 3: 3 fields where the header has 2" in message(write(tmp_path / "a.csv", "input,target\na,b\na,b,c"))
    table = read(write(tmp_path / "b.csv", "input,target\n\na,b\n\n\nc,d\n\n"))
    assert [(row.input, row.line) for row in table.rows] == [("a", 3), ("c", 6)]
    assert "starts on line 2" in message(write(tmp_path / "c.csv", 'input,target\n"a,b'))
    assert "occurs twice" in message(write(tmp_path / "d.csv", "input,input\na,b"))
    (tmp_path / "e.jsonl").write_bytes(b'{"input": "\xff"}')
    assert "not UTF-8" in message(tmp_path / "e.jsonl")
    (tmp_path / "f.parquet").write_bytes(b"no parquet")
    assert "not a readable Parquet file" in message(tmp_path / "f.parquet")


def test_long_csv_fields_are_read_and_the_limit_is_restored(tmp_path):
    before = csv.field_size_limit()
    assert read(write(tmp_path / "x.csv", "input,target\n" + "a" * 200_000 + ",b")).rows[0].target == "b"
    assert csv.field_size_limit() == before


def test_hub_datasets(monkeypatch):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        if name == "none":
            raise datasets.exceptions.DatasetNotFoundError("no dataset none")
        return datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("owner/set:dev").rows == [Row("a", "1", 1), Row("b", "0", 2)]
    read("set")
    assert asked == [("owner/set", "dev"), ("set", "train")]
    text = message("none")
    assert "no Hub dataset" in text
    assert "DatasetNotFoundError" in text


def test_reading_does_not_import_torch():
    code = "import sys, graftune.datasets.rows; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
