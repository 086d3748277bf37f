"""Numbered records of a source, read when they are asked for."""

from __future__ import annotations

import array
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from graftune.datasets.values import InvalidValue

LARGE = 2**28  # bytes of a file that is compared as it is, not row by row


class Record(NamedTuple):
    """One row as it was found; `line` counts from 1."""

    line: int
    values: dict[str, Any]


class Records(ABC):
    """The records of a source by their positions, from 0; a bad one is in `problems`, by its line.

    `columns` are in order of appearance, `total` counts good and bad records, `folder` is where relative paths start,
    `remarks` say what was chosen or left out, and `held` is what has to live as long as the records do (a temporary
    folder).
    """

    columns: list[str]
    problems: dict[int, str]
    total: int
    folder: Path = Path()
    remarks: tuple[str, ...] = ()
    held: object = None

    @abstractmethod
    def scan(self) -> Iterator[tuple[int, Record]]:
        """All good records with their positions, in order."""

    @abstractmethod
    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        """The good records at these positions."""

    def lines(self, positions: numpy.ndarray) -> numpy.ndarray:
        """The lines of these positions: here the next number, as for everything that has no lines of its own."""
        return positions.astype(numpy.int64) + 1

    @property
    def last_line(self) -> int:
        """The last line of a record, good or bad."""
        return self.total

    def digest(self) -> bytes | None:
        """Of all bytes that the records come from, where these are one large file; None elsewhere."""
        return None


class HeldRecords(Records):
    """Records that are held in memory."""

    def __init__(self, records: Sequence[Record], columns: Iterable[str], problems: dict[int, str]) -> None:
        self.records = records
        self.columns = list(columns)
        self.problems = problems
        self.total = len(records) + len(problems)

    def scan(self) -> Iterator[tuple[int, Record]]:
        return enumerate(self.records)

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        return (self.records[position] for position in positions)

    def lines(self, positions: numpy.ndarray) -> numpy.ndarray:
        return numpy.array([record.line for record in self.records], numpy.int64)[positions]

    @property
    def last_line(self) -> int:
        return max([*(record.line for record in self.records[-1:]), *self.problems, self.total])


def numbered(rows: Iterable[Any], problems: dict[int, str] | None = None) -> HeldRecords:
    """Records out of objects, numbered from 1; what is no object is a problem."""
    found: list[Record] = []
    wrong = dict(problems or {})
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            found.append(Record(number, row))
        elif number not in wrong:
            wrong[number] = f"a JSON {type(row).__name__} where an object was expected"
    columns = dict.fromkeys(name for record in found for name in record.values)
    return HeldRecords(found, columns, wrong)


class LineRecords(Records):
    """A record a line: of the file only the offsets of its lines are held (8 bytes a line).

    `parse` makes a record of a line's bytes, None of one to pass over, and raises InvalidValue.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], dict[str, Any] | None]) -> None:
        self.path = path
        self.parse = parse
        self.problems = {}
        starts = array.array("Q")
        columns: dict[str, None] = {}
        last = 0
        for number, (offset, line) in enumerate(self._lines(), 1):
            starts.append(offset)
            try:
                values = parse(line)
            except InvalidValue as error:
                self.problems[number] = str(error)
            else:
                columns.update(dict.fromkeys(values or ()))
            last = number if line.strip() else last
        for number in [number for number in self.problems if number > last]:
            del self.problems[number]  # empty lines at the end
        self.columns = list(columns)
        self.total = last
        self.starts = starts_of(starts, path)

    def scan(self) -> Iterator[tuple[int, Record]]:
        for position, (_, line) in enumerate(self._lines()):
            if position >= self.total:
                return
            if position + 1 not in self.problems and (values := self.parse(line)) is not None:
                yield position, Record(position + 1, values)

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        with self.path.open("rb") as file:
            for position in positions:
                start, end = int(self.starts[position]), int(self.starts[position + 1])
                file.seek(start)
                values = self.parse(_without_mark(file.read(end - start), start))
                yield Record(position + 1, values or {})

    def digest(self) -> bytes | None:
        return digest_of(self.path)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                yield offset, _without_mark(line, offset)
                offset += len(line)


def digest_of(path: Path) -> bytes | None:
    """SHA-256 of a file's bytes where it is large: quicker than to make its rows; None for a small one."""
    if path.stat().st_size < LARGE:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def starts_of(starts: array.array[int], path: Path) -> numpy.ndarray:
    """uint64 (records + 1,): the byte at which each record of a file starts, then the file's end."""
    starts.append(path.stat().st_size)
    return numpy.frombuffer(starts, numpy.uint64)


def _without_mark(line: bytes, offset: int) -> bytes:
    """The line without the byte-order mark that a file may start with."""
    return line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line


def decoded(line: bytes) -> str:
    """The text of a line. Raises InvalidValue where it is no UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8 (byte {line[error.start]:#04x} at place {error.start + 1})") from error
