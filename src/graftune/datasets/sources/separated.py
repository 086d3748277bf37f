"""Tables as text: fields with commas, semicolons or tabs between, under a line of names."""

from __future__ import annotations

import array
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy

from graftune.datasets.sources.records import Record, Records, decoded, digest_of, starts_of
from graftune.datasets.sources.text import not_utf8
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError

csv.field_size_limit(max(csv.field_size_limit(), 2**30))  # a document to summarise is longer than csv's 128 KiB
_SAID = re.compile(rb"(?:\xef\xbb\xbf)?sep=([,;\t|])\r?\n")  # a first line by which Excel is told
_MARK = b"\xef\xbb\xbf"
NAMES: Final = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
REPEATED: Final = 0.001  # share of rows that begin as the first one does, where that is no header
Opener = Callable[[], IO[bytes]]


class Layout(NamedTuple):
    """How the fields of a table are told apart, and how many rows come before the header."""

    separator: str
    quoted: bool = True
    before: int = 0


class Fit(NamedTuple):
    """How well a layout fits: rows under the header, those with another number of fields, and the header's fields."""

    rows: int
    bad: int
    width: int


class SeparatedRecords(Records):
    """The rows of a table; of the file only the places of its rows are held (12 bytes a row).

    Empty lines are passed over. Where the first row has fields of other rows, it is no header: the columns are
    `column 1`, `column 2`, …
    """

    def __init__(self, path: Path, layout: Layout, shown: str) -> None:
        self.path, self.layout, self.shown = path, layout, shown
        self.problems = {}
        starts, lines = array.array("Q"), array.array("I")
        rows = self._rows()
        top = next(rows, (1, 0, []))
        repeated = [0] * len(top[2])  # rows that have the same in a column as the first one
        width = len(top[2])
        again = []  # lines that are the first row again
        for line, start, fields in rows:
            starts.append(start)
            lines.append(line)
            if len(fields) != width:
                self.problems[line] = self._problem(fields, width)
            elif fields == top[2]:
                again.append(line)
            else:
                repeated = [count + (one == other) for count, one, other in zip(repeated, fields, top[2], strict=True)]
        self.has_header = max(repeated, default=0) < max(2, REPEATED * len(lines))
        if self.has_header:
            self.columns = _names(top[2], shown)
            self.problems |= dict.fromkeys(again, "the names of the columns again")
        else:
            self.columns = [f"column {place}" for place in range(1, width + 1)]
            self.remarks = (f"no line of names is seen: the columns are {', '.join(self.columns)}",)
            starts.insert(0, top[1])
            lines.insert(0, top[0])
        self.total = len(lines)
        self.starts = starts_of(starts, path)
        self.numbers = numpy.frombuffer(lines, numpy.uint32)

    def scan(self) -> Iterator[tuple[int, Record]]:
        rows = self._rows()
        if self.has_header:
            next(rows, None)
        for position, (line, _, fields) in enumerate(rows):
            if line not in self.problems:
                yield position, self._record(line, fields)

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        with self.path.open("rb") as file:
            for position in positions:
                start, end = int(self.starts[position]), int(self.starts[position + 1])
                file.seek(start)
                text = decoded(file.read(end - start))
                try:
                    fields: list[str] = next(_reader(io.StringIO(text, newline=""), self.layout), [])
                except csv.Error as error:
                    raise InvalidValue(f"broken CSV ({error})") from error
                yield self._record(int(self.numbers[position]), fields)

    def lines(self, positions: numpy.ndarray) -> numpy.ndarray:
        return self.numbers[positions].astype(numpy.int64)

    @property
    def last_line(self) -> int:
        return int(self.numbers[-1]) if len(self.numbers) else 0

    def digest(self) -> bytes | None:
        return digest_of(self.path)

    def _rows(self) -> Iterator[tuple[int, int, list[str]]]:
        return _rows(lambda: self.path.open("rb"), self.layout, self.shown)

    def _record(self, line: int, fields: list[str]) -> Record:
        if len(fields) != len(self.columns):
            raise InvalidValue(self._problem(fields, len(self.columns)))
        return Record(line, dict(zip(self.columns, fields, strict=True)))

    def _problem(self, fields: list[str], width: int) -> str:
        return f"{len(fields)} fields where the header has {width} (separated by {NAMES[self.layout.separator]})"


def read(path: Path, shown: str) -> Records:
    """A .csv file, whose separator is found by its rows. Raises GraftuneError for broken quotes and names."""
    return SeparatedRecords(path, sniffed(lambda: path.open("rb"), shown), shown)


def read_tabs(path: Path, shown: str) -> Records:
    """A .tsv file. Raises GraftuneError as `read` does."""
    return SeparatedRecords(path, tabs(lambda: path.open("rb"), shown), shown)


def sniffed(opener: Opener, shown: str) -> Layout:
    """The separator that fits most rows; of several the first of `NAMES`. Raises GraftuneError for broken quotes."""
    with opener() as file:
        head = file.readline()
        if said := _SAID.match(head):
            return Layout(said[1].decode(), before=1)
        while head and not head.removeprefix(_MARK).strip(b"\r\n"):
            head = file.readline()
    fitting = [sign for sign in NAMES if sign.encode() in head] or [","]
    layouts = [tabs(opener, shown) if sign == "\t" else Layout(sign) for sign in fitting]
    return _best(layouts, opener, shown)


def tabs(opener: Opener, shown: str) -> Layout:
    """Fields with tabs between: quotes are part of the text, except where they hold every row together better."""
    plain, quoted = Layout("\t", quoted=False), Layout("\t")
    try:
        with_quotes, without = fit(quoted, opener, shown), fit(plain, opener, shown)
    except GraftuneError:
        return plain
    if with_quotes.bad != without.bad:
        return quoted if with_quotes.bad < without.bad else plain
    return quoted if with_quotes.rows == without.rows else plain


def _best(layouts: list[Layout], opener: Opener, shown: str) -> Layout:
    if len(layouts) == 1:
        return layouts[0]
    fits: list[tuple[int, Layout]] = []
    broken: list[GraftuneError] = []
    for layout in layouts:
        try:
            fits.append((fit(layout, opener, shown).bad, layout))
        except GraftuneError as error:
            broken.append(error)
    if not fits:
        raise broken[0]
    return min(fits, key=lambda one: one[0])[1]


def fit(layout: Layout, opener: Opener, shown: str, *, cut: bool = False) -> Fit:
    """How a layout fits; the last row of a text that was `cut` is left out. Raises GraftuneError for broken quotes."""
    rows = _rows(opener, layout, shown, strict=not cut)
    width = len(next(rows, (0, 0, []))[2])
    widths = array.array("I", (len(fields) for _, _, fields in rows))
    while widths and (cut or not widths[-1]):  # empty lines at the end are none
        widths.pop()
        cut = False
    return Fit(len(widths), sum(one != width for one in widths), width)


def _rows(opener: Opener, layout: Layout, shown: str, *, strict: bool = True) -> Iterator[tuple[int, int, list[str]]]:
    """The header and the rows: the line and the byte that each starts at, and its fields."""
    with opener() as file:
        lines = _Lines(file, shown)
        reader = _reader(lines, layout, strict=strict)
        line, start = 1, 0
        try:
            for number, fields in enumerate(reader):
                if number >= layout.before and fields:
                    yield line, start, fields
                line, start = reader.line_num + 1, lines.end
        except csv.Error as error:
            raise GraftuneError(
                f"{shown}: broken CSV in the record that starts on line {line}",
                received=str(error),
                expected=f'fields separated by {NAMES[layout.separator]}, with " doubled inside quoted ones',
                do="close the quotes, or save the file as .jsonl",
            ) from error


class _Lines:
    """The lines of a file, \\n, \\r\\n and \\r alike, and the byte at which the next one starts."""

    def __init__(self, file: IO[bytes], shown: str) -> None:
        self.file, self.shown = file, shown
        self.end = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            begin = self.end
            mark = len(_MARK) if begin == 0 and line.startswith(_MARK) else 0
            try:
                text = line[mark:].decode("utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(self.shown, error, begin + mark) from error
            if "\r" not in text.rstrip("\r\n"):
                self.end = begin + len(line)
                yield text
                continue
            self.end += mark
            for part in io.StringIO(text, newline=""):
                self.end += len(part.encode())
                yield part


def _reader(lines: Iterable[str], layout: Layout, *, strict: bool = True) -> Any:
    if layout.quoted:
        return csv.reader(lines, delimiter=layout.separator, strict=strict)
    return csv.reader(lines, delimiter=layout.separator, strict=strict, quoting=csv.QUOTE_NONE)


def _names(header: list[str], shown: str) -> list[str]:
    """The names of the columns; one without a name gets pandas' own. Raises GraftuneError for a name twice."""
    columns = [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(header)]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise GraftuneError(
            f"{shown}: a column name occurs twice",
            received=", ".join(map(repr, twice)),
            expected="a header line with distinct names",
            do="rename one of them",
        )
    return columns
