"""Rows that are made when they are asked for, so that a data set may be larger than memory."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy

from graftune.datasets.columns import Columns, cell, texts
from graftune.datasets.sources.records import Record, Records
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError

AT_ONCE = 2**20  # rows whose lines are compared at a time


@dataclass(frozen=True)
class Row:
    """One example. `line` is its line in the file (its row number, from 1, where a file has no line for each row).

    Input and target are text, or what the task reads (tags, boxes, …); `columns` are the record's columns of text.
    """

    input: Any
    target: Any
    line: int
    references: tuple[Any, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def texts(self) -> dict[str, Any]:
        """What a template's slots stand for."""
        return {**self.columns, "input": self.input}


@dataclass(frozen=True)
class RowMaker:
    """Rows out of a record: its cells as `columns` reads them. Without a target the rows are inputs alone.

    `second` is the column that is read together with the target.
    """

    columns: Columns
    input: str
    target: str | None
    folder: Path
    second: str | None = None

    def __call__(self, record: Record) -> list[Row]:
        """The rows of a record. Raises InvalidValue that says all that is wrong with it."""
        named = texts(record.values, self.columns.structured)
        if self.target is None:
            return [Row(self._prompt(record), None, record.line, columns=named)]
        given, wanted = self._cells(record, self.input, self.target)
        examples = self.columns.examples(given, wanted)
        return [Row(one, answer, record.line, columns=named) for one, answer in examples]

    def described(self) -> str:
        """What is read of a record, and by which functions."""
        named = [name for name in (self.input, self.target, self.second) if name is not None]
        functions = [self.columns.reader(name, target=name == self.target) for name in named]
        names = [getattr(one, "__qualname__", repr(one)) for one in (*functions, self.columns.examples)]
        return repr((named, names))

    def _prompt(self, record: Record) -> Any:
        """The input alone: of a record with several examples the one of the last."""
        if self.input in self.columns.prompts:
            return cell(record.values, self.input, self.columns.prompts[self.input], self.folder)
        return self.columns.examples(self._cells(record, self.input)[0], None)[-1][0]

    def _cells(self, record: Record, *names: str) -> list[Any]:
        found: list[Any] = []
        wrong: list[str] = []
        for name in names:
            try:
                reader = self.columns.reader(name, target=name == self.target)
                second = self.second if name == self.target else None
                found.append(cell(record.values, name, reader, self.folder, second))
            except InvalidValue as error:
                wrong.append(str(error))
        if wrong:
            raise InvalidValue("; ".join(dict.fromkeys(wrong)))
        return found


class Rows(Sequence[Row]):
    """Rows by the positions of their records, each made anew on every access.

    `positions`, (rows,), are records of the source; `examples`, (rows,), say which example of its record a row is.
    """

    def __init__(
        self, records: Records, make: RowMaker, positions: numpy.ndarray, examples: numpy.ndarray | None = None
    ) -> None:
        self._records = records
        self._make = make
        self._positions = positions
        self._examples = examples

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self._chosen(index)
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        place %= len(self)
        return next(iter(self._chosen(slice(place, place + 1))))

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._each()
        except (InvalidValue, OSError, IndexError) as error:
            raise GraftuneError(
                "a row cannot be read any more",
                received=f"{type(error).__name__}: {error}",
                expected="data that stay as they are while they are in use",
                do="start again with the data as they are now",
            ) from error

    def _each(self) -> Iterator[Row]:
        if self._examples is None:
            for record in self._records.at(map(int, self._positions)):
                yield self._make(record)[0]
            return
        before, made = -1, []
        for position, example in zip(map(int, self._positions), map(int, self._examples), strict=True):
            if position != before:
                before, made = position, self._make(next(iter(self._records.at([position]))))
            yield made[example]

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same rows."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"

    def select(self, indices: Iterable[int] | numpy.ndarray) -> Rows:
        """The rows at these places, in this order, still made when asked for."""
        chosen = indices if isinstance(indices, numpy.ndarray) else numpy.fromiter(indices, numpy.int64)
        return self._chosen(chosen)

    def without(self, lines: Iterable[int]) -> Rows:
        """The rows of all other lines, found without making a row."""
        bad = numpy.fromiter(lines, numpy.int64)
        good = numpy.ones(len(self), bool)
        for start in range(0, len(self), AT_ONCE):
            block = slice(start, start + AT_ONCE)
            good[block] = ~numpy.isin(self._records.lines(self._positions[block]), bad)
        return self._chosen(good)

    def digest(self) -> bytes | None:
        """What rows of a large file depend on; None where they are few, or images, which lie in files of their own."""
        first = next(iter(self), None)
        if first is None or isinstance(first.input, Path | bytes):
            return None
        found = self._records.digest()
        if found is None:
            return None
        whole = hashlib.sha256(found + self._make.described().encode())
        for places in (self._positions, self._examples):
            if places is not None:
                whole.update(numpy.ascontiguousarray(places, numpy.uint32).data)
        return whole.digest()

    def _chosen(self, chosen: slice | numpy.ndarray) -> Rows:
        examples = None if self._examples is None else self._examples[chosen]
        return Rows(self._records, self._make, self._positions[chosen], examples)
