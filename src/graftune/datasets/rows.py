"""Tables of training and evaluation data, and the one function that reads them."""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from graftune.datasets import sources
from graftune.datasets.columns import TEXT, Columns, one_example
from graftune.datasets.lazy import Row, RowMaker, Rows
from graftune.datasets.problems import bad_lines, described, refuse, row_with
from graftune.datasets.sources.records import Record, numbered
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError

__all__ = [
    "Row",
    "Rows",
    "Table",
    "bad_lines",
    "described",
    "fingerprint",
    "grouped",
    "read",
    "read_inputs",
    "refuse",
    "rows_of",
]


@dataclass(frozen=True)
class Table:
    """The rows of one source, and the columns they were taken from.

    `left_out` has the lines that could not be used, with the reason; `columns` are all columns of the source,
    and `second` is the one that is read together with the target (the labels of boxes). `remarks` say what of the
    source was chosen or left out.
    """

    rows: Sequence[Row]
    input: str
    target: str
    guessed: bool
    source: str
    left_out: Mapping[int, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    second: str | None = None
    remarks: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Of what the rows hold; images are read for it, so that it waits until somebody asks."""
        return fingerprint(self.rows)

    def keep(self, rows: Sequence[Row]) -> Table:
        """The table with these rows alone."""
        return replace(self, rows=rows if isinstance(rows, Rows) else list(rows))

    def without(self, problems: Mapping[int, str], share: float, expected: str) -> Table:
        """The table without the bad lines. Raises GraftuneError where they are more than `share` of its rows.

        `expected` says what a good line has.
        """
        refuse(self.source, problems, len(self.rows), share, expected)
        if not problems:
            return self
        if isinstance(self.rows, Rows):
            kept = self.keep(self.rows.without(problems))
        else:
            kept = self.keep([row for row in self.rows if row.line not in problems])
        return replace(kept, left_out={**self.left_out, **problems})


def read(
    source: str | Path | Sequence[Mapping[str, Any]],
    input: str | None = None,
    target: str | None = None,
    columns: Columns = TEXT,
    share: float = 0.0,
) -> Table:
    """Read a file, a folder or a Hub dataset `name[@config][:split]` (docs/data.md lists the formats), or records.

    Every row is looked at once, and made again when it is used. Raises GraftuneError: missing file, unknown
    extension, unknown or unguessable column, no rows, more than `share` of the lines bad (all of a file are
    collected into one error).
    """
    raw = _records(source)
    shown = _shown(source)
    try:
        chosen_input, chosen_target, guessed = columns.choose(raw.columns, input, target)
    except GraftuneError as error:
        raise error.at(shown) from error
    second = columns.second(raw.columns, chosen_target)
    rows, problems = _made(raw, RowMaker(columns, chosen_input, chosen_target, raw.folder, second))
    expected = row_with(dict.fromkeys((chosen_input, chosen_target)))
    refuse(shown, problems, raw.total, share, expected)
    _need_rows(shown, rows, problems)
    return Table(rows, chosen_input, chosen_target, guessed, shown, problems, tuple(raw.columns), second, raw.remarks)


def read_inputs(source: str | Path, input: str | None = None, columns: Columns = TEXT) -> Sequence[Row]:
    """Only the inputs of a source that `read` reads, as rows whose target is None.

    Raises GraftuneError as `read` does.
    """
    raw = _records(source)
    column = columns.choose_input(raw.columns, input)
    rows, problems = _made(raw, RowMaker(columns, column, None, raw.folder))
    refuse(str(source), problems, raw.total, 0.0, row_with([column]))
    _need_rows(source, rows, problems)
    return rows


def rows_of(texts: Sequence[Any], columns: Columns = TEXT) -> list[Row]:
    """Inputs as they are, such as text on the command line, or records of columns, as rows whose target is None.

    Raises GraftuneError for one that the task cannot read.
    """
    return [row_of(text, columns, line) for line, text in enumerate(texts, 1)]


def row_of(given: Any, columns: Columns = TEXT, line: int = 1) -> Row:
    """One input as a row whose target is None: a record with its own columns, or else the input alone.

    Raises GraftuneError for one that the task cannot read.
    """
    try:
        if isinstance(given, list | tuple) and columns.prompts and all(isinstance(one, Mapping) for one in given):
            return Row(next(iter(columns.prompts.values()))(given, Path()), None, line)  # a conversation by itself
        if not isinstance(given, Mapping):
            return Row(columns.examples(columns.input(given, Path()), None)[-1][0], None, line)
        name = columns.choose_input(list(given), None)
        return RowMaker(columns, name, None, Path())(Record(line, dict(given)))[0]
    except InvalidValue as error:
        raise bad_lines("inputs", {line: str(error)}, "inputs that the task can read") from error


def _shown(source: str | Path | Sequence[Mapping[str, Any]]) -> str:
    return str(source) if isinstance(source, str | Path) else "records"


def _records(source: str | Path | Sequence[Mapping[str, Any]]) -> sources.Records:
    raw = sources.load(source) if isinstance(source, str | Path) else numbered(source)
    if not raw.columns and raw.problems:
        raise bad_lines(_shown(source), raw.problems)
    if not raw.total or not raw.columns:
        raise _no_rows(_shown(source))
    return raw


def _made(raw: sources.Records, make: RowMaker) -> tuple[Rows, dict[int, str]]:
    """The rows of all records that the task can read, and what is wrong with the others."""
    problems = dict(raw.problems)
    several = make.target is not None and make.columns.examples is not one_example
    positions, examples = array.array("I"), array.array("I")
    for position, record in raw.scan():
        try:
            made = len(make(record))
        except InvalidValue as error:
            problems[record.line] = str(error)
            continue
        positions.extend([position] * made)
        if several:
            examples.extend(range(made))
    found = numpy.frombuffer(positions, numpy.uint32)
    return Rows(raw, make, found, numpy.frombuffer(examples, numpy.uint32) if several else None), problems


def _need_rows(source: str | Path, rows: Sequence[Row], problems: Mapping[int, str]) -> None:
    if not rows:
        raise bad_lines(str(source), problems) if problems else _no_rows(source)


def _no_rows(source: str | Path) -> GraftuneError:
    return GraftuneError(
        "the data has no rows", received=str(source), expected="at least one row", do="check the source"
    )


def grouped(rows: Iterable[Row], key: Callable[[Row], Any] = lambda row: row.input) -> list[Row]:
    """Rows with an identical key, by default their input, become one, whose references are all their targets.

    The group keeps the target and the line of its first row.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [
        replace(group[0], references=tuple(text for row in group for text in row.references or (row.target,)))
        for group in groups.values()
    ]


def fingerprint(rows: Iterable[Row]) -> str:
    """16 hexadecimal digits that change when any input, target, reference, other column or the order of rows does.

    Rows of a large file stand for its bytes, what is read of it, and which rows are kept.
    """
    if isinstance(rows, Rows) and (digest := rows.digest()):
        return digest.hex()[:16]
    whole = hashlib.sha256()
    for row in rows:
        whole.update(content(row.input, row.target, *row.references, sorted(row.columns.items())) + b"\n")
    return whole.hexdigest()[:16]


def content(*values: Any) -> bytes:
    """Values as JSON, for comparing."""
    return json.dumps([_named(value) for value in values], default=str).encode()


def _named(value: Any) -> Any:
    """An image by its content, so that the place of a folder does not matter."""
    if isinstance(value, Path):
        value = value.read_bytes()
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
