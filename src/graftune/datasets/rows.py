"""Rows of training and evaluation data, and the one function that reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from graftune.datasets import sources
from graftune.datasets.columns import TEXT, Columns, cell, texts
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError

SHOWN = 5  # bad lines quoted in one message; the rest are counted


@dataclass(frozen=True)
class Row:
    """One example. `line` is its line in the file (its row number, from 1, in Parquet and Hub data).

    Input and target are text, or what the task reads (tags, boxes, …); `columns` are the record's columns of text.
    """

    input: Any
    target: Any
    line: int
    references: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def texts(self) -> dict[str, Any]:
        """What a template's slots stand for."""
        return {**self.columns, "input": self.input}


@dataclass(frozen=True)
class Table:
    """The rows of one source, and the columns they were taken from.

    `left_out` has the lines that could not be used, with the reason; `columns` are all columns of the source.
    """

    rows: list[Row]
    input: str
    target: str
    guessed: bool
    source: str
    left_out: Mapping[int, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Of the content of the rows; images are read for it, so that it waits until somebody asks."""
        return fingerprint(self.rows)

    def keep(self, rows: Sequence[Row]) -> Table:
        """The table with these rows alone."""
        return replace(self, rows=list(rows))

    def without(self, problems: Mapping[int, str], share: float, expected: str) -> Table:
        """The table without the bad lines. Raises GraftuneError where they are more than `share` of its rows.

        `expected` says what a good line has.
        """
        refuse(self.source, problems, len(self.rows), share, expected)
        if not problems:
            return self
        kept = self.keep([row for row in self.rows if row.line not in problems])
        return replace(kept, left_out={**self.left_out, **problems})


def read(
    source: str | Path,
    input: str | None = None,
    target: str | None = None,
    columns: Columns = TEXT,
    share: float = 0.0,
) -> Table:
    """Read a .jsonl, .csv or .parquet file, a folder of Pascal VOC files, or a Hub dataset `name[:split]`.

    Raises GraftuneError: missing file, unknown extension, unknown or unguessable column, no rows, more than
    `share` of the lines bad (all of a file are collected into one error).
    """
    raw = _records(source)
    chosen_input, chosen_target, guessed = columns.choose(raw.columns, input, target)
    readers = columns.reader(chosen_input, target=False), columns.reader(chosen_target, target=True)
    rows: list[Row] = []
    problems = dict(raw.problems)
    for line, values in raw.records:
        found, wrong = _cells(values, (chosen_input, chosen_target), readers, _folder(source))
        if wrong:
            problems[line] = wrong
            continue
        named = texts(values)
        rows += [Row(given, wanted, line, columns=named) for given, wanted in columns.examples(*found)]
    refuse(
        str(source),
        problems,
        len(raw.records) + len(raw.problems),
        share,
        _row_with(dict.fromkeys((chosen_input, chosen_target))),
    )
    return Table(rows, chosen_input, chosen_target, guessed, str(source), problems, tuple(raw.columns))


def read_inputs(source: str | Path, input: str | None = None, columns: Columns = TEXT) -> list[Row]:
    """Only the inputs of a source that `read` reads, as rows whose target is None.

    Raises GraftuneError as `read` does.
    """
    raw = _records(source)
    column = columns.choose_input(raw.columns, input)
    rows: list[Row] = []
    problems = dict(raw.problems)
    for line, values in raw.records:
        found, wrong = _cells(values, (column,), (columns.reader(column, target=False),), _folder(source))
        if wrong:
            problems[line] = wrong
        else:
            given = columns.examples(found[0], None)[-1][0]
            rows.append(Row(given, None, line, columns=texts(values)))
    refuse(str(source), problems, len(raw.records) + len(raw.problems), 0.0, _row_with([column]))
    return rows


def rows_of(texts: Sequence[str], columns: Columns = TEXT) -> list[Row]:
    """Inputs given as text, such as on the command line, as rows whose target is None.

    Raises GraftuneError for one that the task cannot read.
    """
    rows: list[Row] = []
    for line, text in enumerate(texts, 1):
        try:
            given = columns.input(text, Path())
        except InvalidValue as error:
            raise bad_lines("inputs", {line: str(error)}, "inputs that the task can read") from error
        rows.append(Row(columns.examples(given, None)[-1][0], None, line, columns={"input": text}))
    return rows


def _folder(source: str | Path) -> Path:
    path = Path(source)
    return path if path.is_dir() else path.parent


def _records(source: str | Path) -> sources.Raw:
    raw = sources.load(source)
    if not raw.records:
        if raw.problems:
            raise bad_lines(str(source), raw.problems)
        raise GraftuneError(
            "the data has no rows", received=str(source), expected="at least one row", do="check the source"
        )
    return raw


def _cells(values: Mapping[str, Any], names: Sequence[str], readers: Sequence[Any], folder: Path) -> tuple[Any, str]:
    """The values of these columns, and what is wrong with any of them."""
    found, wrong = [], []
    for name, reader in zip(names, readers, strict=True):
        try:
            found.append(cell(values, name, reader, folder))
        except InvalidValue as error:
            wrong.append(str(error))
    return found, "; ".join(dict.fromkeys(wrong))


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
    """16 hexadecimal digits that change when any input, target, reference or the order of rows does."""
    digest = hashlib.sha256()
    for row in rows:
        content = [_named(row.input), row.target, *row.references]
        digest.update(json.dumps(content, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


def _named(value: Any) -> Any:
    """An image by its content, so that the place of a folder does not matter."""
    if isinstance(value, Path):
        value = value.read_bytes()
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def refuse(source: str, problems: Mapping[int, str], lines: int, share: float, expected: str) -> None:
    """Raise GraftuneError where more than `share` of the lines are bad."""
    if len(problems) > share * lines:
        raise bad_lines(source, problems, expected)


def bad_lines(source: str, problems: Mapping[int, str], expected: str = "") -> GraftuneError:
    """One error for all bad lines of a source: the first ones in full, then how many more."""
    return GraftuneError(
        f"{source}: {len(problems)} bad line{'s' if len(problems) > 1 else ''}",
        received=("\n" + " " * len("  received: ")).join(described(problems)),
        expected=expected or _row_with(("input", "target")),
        do="correct or delete these lines, or raise bad_rows, the share that may be left out",
    )


def described(problems: Mapping[int, str]) -> list[str]:
    """The first problems with their lines, then how many more there are."""
    shown = [f"line {line}: {problems[line]}" for line in sorted(problems)[:SHOWN]]
    more = len(problems) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def _row_with(columns: Iterable[str]) -> str:
    return "on every line one row with " + " and ".join(columns) + ", not empty"
