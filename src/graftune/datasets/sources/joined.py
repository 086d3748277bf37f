"""Several files that are one data set: shards whose names differ in their numbers alone, or those of a pattern."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy

from graftune.datasets.sources.records import Record, Records


class Joined(Records):
    """The records of several files, one file after the other; lines are counted on from file to file.

    `names` are the files as they are shown beside their bad lines.
    """

    def __init__(self, parts: Sequence[Records], names: Sequence[str]) -> None:
        self.parts = parts
        self.starts = numpy.array([0, *accumulate(part.total for part in parts)])  # each file's first position
        self.before = numpy.array([0, *accumulate(part.last_line for part in parts)])  # the lines in front of a file
        self.columns = list(dict.fromkeys(name for part in parts for name in part.columns))
        self.total = int(self.starts[-1])
        self.folder = parts[0].folder
        self.held = [part.held for part in parts]
        self.remarks = tuple(dict.fromkeys(remark for part in parts for remark in part.remarks))
        self.problems = {
            before + line: f"{name}, line {line}: {problem}"
            for before, part, name in zip(self.before.tolist(), parts, names, strict=False)
            for line, problem in part.problems.items()
        }

    @property
    def last_line(self) -> int:
        return int(self.before[-1])

    def scan(self) -> Iterator[tuple[int, Record]]:
        for start, before, part in zip(self.starts.tolist(), self.before.tolist(), self.parts, strict=False):
            for position, record in part.scan():
                yield start + position, Record(before + record.line, record.values)

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        for number, run in groupby(positions, self._file):
            start, before = int(self.starts[number]), int(self.before[number])
            for record in self.parts[number].at(position - start for position in run):
                yield Record(before + record.line, record.values)

    def lines(self, positions: numpy.ndarray) -> numpy.ndarray:
        found = numpy.empty(len(positions), numpy.int64)
        files = self._file(positions)
        for number, part in enumerate(self.parts):
            own = files == number
            found[own] = part.lines(positions[own] - self.starts[number]) + self.before[number]
        return found

    def _file(self, positions: Any) -> Any:
        """The number of the file that each position is in."""
        return numpy.searchsorted(self.starts, positions, side="right") - 1
