"""Tables as text: fields with commas, semicolons or tabs between, under a line of names."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Final, NamedTuple

from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.sources.text import whole
from graftune.errors import GraftuneError

LONGEST_FIELD = 2**30  # csv refuses fields over 128 KiB, and a document to summarise may be longer
_SAID = re.compile(r"sep=([,;\t|])\r?\n")  # a first line by which Excel is told
NAMES: Final = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}


class Parsed(NamedTuple):
    """Rows of fields with the lines they start on, and how they were found."""

    rows: list[tuple[int, list[str]]]
    separator: str
    quoted: bool

    @property
    def header(self) -> list[str]:
        return self.rows[0][1] if self.rows else []

    @property
    def bad(self) -> int:
        """Rows with another number of fields than the header."""
        return sum(len(fields) != len(self.header) for _, fields in self.rows)


def read(path: Path, shown: str) -> Records:
    """A .csv file, whose separator is found by its rows."""
    return _records(sniffed(whole(path, shown), shown), shown)


def read_tabs(path: Path, shown: str) -> Records:
    """A .tsv file."""
    return _records(tabs(whole(path, shown), shown), shown)


def sniffed(text: str, shown: str) -> Parsed:
    """The separator that fits most rows; of several the first of `NAMES`. Raises GraftuneError for broken quotes."""
    if said := _SAID.match(text):
        told = parsed(text, said[1], shown)
        return told._replace(rows=told.rows[1:])
    head = text.lstrip("\n\r").split("\n", 1)[0]
    fitting = [sign for sign in NAMES if sign in head] or [","]
    found: list[Parsed] = []
    broken: list[GraftuneError] = []
    for sign in fitting:
        try:
            one = tabs(text, shown) if sign == "\t" else parsed(text, sign, shown)
        except GraftuneError as error:
            broken.append(error)
            continue
        if not one.bad:
            return one
        found.append(one)
    if not found:
        raise broken[0]
    return min(found, key=lambda one: one.bad)


def tabs(text: str, shown: str) -> Parsed:
    """Fields with tabs between: quotes are part of the text, except where they hold every row together better."""
    plain = parsed(text, "\t", shown, quoted=False)
    try:
        quoted = parsed(text, "\t", shown)
    except GraftuneError:
        return plain
    if quoted.bad != plain.bad:
        return min(quoted, plain, key=lambda one: one.bad)
    return quoted if len(quoted.rows) == len(plain.rows) else plain


def parsed(text: str, separator: str, shown: str, *, quoted: bool = True) -> Parsed:
    """The rows of a text. Raises GraftuneError for quotes that do not close."""
    # newline="" keeps line breaks as they are: a quoted field may hold some.
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True)
    rows: list[tuple[int, list[str]]] = []
    before = csv.field_size_limit(LONGEST_FIELD)
    start = 1
    try:
        for fields in reader:
            rows.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise GraftuneError(
            f"{shown}: broken CSV in the record that starts on line {start}",
            received=str(error),
            expected=f'fields separated by {NAMES[separator]}, with " doubled inside quoted ones',
            do="close the quotes, or save the file as .jsonl",
        ) from error
    finally:
        csv.field_size_limit(before)
    while rows and not rows[-1][1]:
        rows.pop()
    return Parsed(rows, separator, quoted)


def _records(found: Parsed, shown: str) -> Records:
    columns = [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(found.header)]  # as pandas
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise GraftuneError(
            f"{shown}: a column name occurs twice",
            received=", ".join(map(repr, twice)),
            expected="a header line with distinct names",
            do="rename one of them",
        )
    records: list[Record] = []
    problems: dict[int, str] = {}
    for line, fields in found.rows[1:]:
        if not fields:
            problems[line] = "empty line"
        elif len(fields) != len(columns):
            between = NAMES[found.separator]
            problems[line] = f"{len(fields)} fields where the header has {len(columns)} (separated by {between})"
        else:
            records.append(Record(line, dict(zip(columns, fields, strict=True))))
    return HeldRecords(records, columns, problems)
