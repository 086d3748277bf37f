"""Rows of training and evaluation data, and the one function that reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftune.errors import GraftuneError
from graftune.tasks import columns, sources

SHOWN = 5  # bad lines quoted in one error; the rest are counted


@dataclass(frozen=True)
class Row:
    """One example. `line` is its line in the file (its row number, from 1, in Parquet and Hub data)."""

    input: str
    target: str
    line: int
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The rows of one source, the columns they were taken from, and a fingerprint of their content."""

    rows: list[Row]
    input: str
    target: str
    guessed: bool
    source: str
    fingerprint: str


def read(source: str | Path, input: str | None = None, target: str | None = None) -> Table:
    """Read a .jsonl, .csv or .parquet file, or a Hub dataset `name[:split]` (split "train" by default).

    Raises GraftuneError: missing file, unknown extension, unknown or unguessable column, bad lines
    (all of a file are collected into one error), no rows.
    """
    raw = _records(source)
    chosen_input, chosen_target, guessed = columns.choose(raw.columns, input, target)
    found = _texts(source, raw, (chosen_input, chosen_target))
    rows = [Row(question, answer, line) for line, (question, answer) in found]
    return Table(rows, chosen_input, chosen_target, guessed, str(source), fingerprint(rows))


def read_inputs(source: str | Path, input: str | None = None) -> list[str]:
    """Only the inputs of a source that `read` reads; it may have no target.

    Raises GraftuneError as `read` does.
    """
    raw = _records(source)
    column = columns.choose_input(raw.columns, input)
    return [text for _, (text,) in _texts(source, raw, (column,))]


def _records(source: str | Path) -> sources.Raw:
    raw = sources.load(source)
    if not raw.records:
        if raw.problems:
            raise bad_lines(str(source), raw.problems)
        raise GraftuneError(
            "the data has no rows", received=str(source), expected="at least one row", do="check the source"
        )
    return raw


def _texts(source: str | Path, raw: sources.Raw, names: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Line and texts of these columns for every record; all bad lines in one error."""
    found: list[tuple[int, list[str]]] = []
    problems = dict(raw.problems)
    for line, values in raw.records:
        cells = [_cell(values, name) for name in names]
        if wrong := [cell.problem for cell in cells if cell.problem]:
            problems[line] = "; ".join(wrong)
        else:
            found.append((line, [cell.text for cell in cells]))
    if problems:
        raise bad_lines(str(source), problems, names)
    return found


def grouped(rows: Iterable[Row]) -> list[Row]:
    """Rows with an identical input become one row, whose references are all their targets, in order.

    The group keeps the target and the line of its first row.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.input, []).append(row)
    return [
        replace(group[0], references=tuple(text for row in group for text in row.references or (row.target,)))
        for group in groups.values()
    ]


def fingerprint(rows: Iterable[Row]) -> str:
    """16 hexadecimal digits that change when any input, target, reference or the order of rows does."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.input, row.target, *row.references]).encode() + b"\n")
    return digest.hexdigest()[:16]


def bad_lines(source: str, problems: Mapping[int, str], columns: Sequence[str] = ("input", "target")) -> GraftuneError:
    """One error for all bad lines of a source: the first ones in full, then how many more."""
    shown = [f"line {line}: {problems[line]}" for line in sorted(problems)[:SHOWN]]
    more = len(problems) - len(shown)
    if more:
        shown.append(f"and {more} more")
    return GraftuneError(
        f"{source}: {len(problems)} bad line{'s' if len(problems) > 1 else ''}",
        received=("\n" + " " * len("  received: ")).join(shown),
        expected="on every line one row with " + " and ".join(columns) + ", not empty",
        do="correct or delete these lines",
    )


@dataclass(frozen=True)
class _Cell:
    text: str = ""
    problem: str = ""


def _cell(values: Mapping[str, Any], name: str) -> _Cell:
    """One value as text: numbers are written out; nothing else is guessed at."""
    value = values.get(name)
    if value is None or value != value:  # NaN, the missing value of Parquet, differs from itself
        return _Cell(problem=f"no {name!r}")
    if not isinstance(value, str | int | float):
        return _Cell(problem=f"{name!r} is a {type(value).__name__}, not text")
    text = str(value)
    if not text.strip():
        return _Cell(problem=f"empty {name!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        return _Cell(problem=f"{name!r} holds half of a surrogate pair, which no tokenizer can read")
    return _Cell(text=text)
