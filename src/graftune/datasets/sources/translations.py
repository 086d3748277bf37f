"""Translations as the Hub has them: one column `translation`, an object with a text for each language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy

from graftune.datasets.sources.records import Record, Records

NAME = "translation"


def unfolded(records: Records) -> Records:
    """The records with a column for each language of their column `translation`, where that holds objects of texts."""
    if NAME not in records.columns:
        return records
    first = next(records.scan(), None)
    texts = first[1].values.get(NAME) if first else None
    if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
        return records
    return Translations(records, list(texts))


class Translations(Records):
    """Records whose column `translation` is taken apart; the other columns stay as they are."""

    def __init__(self, records: Records, languages: list[str]) -> None:
        self.records = records
        self.columns = list(dict.fromkeys([*languages, *(name for name in records.columns if name != NAME)]))
        self.problems, self.total = records.problems, records.total
        self.folder, self.held, self.remarks = records.folder, records.held, records.remarks

    def scan(self) -> Iterator[tuple[int, Record]]:
        return ((position, _unfolded(record)) for position, record in self.records.scan())

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        return map(_unfolded, self.records.at(positions))

    def lines(self, positions: numpy.ndarray) -> numpy.ndarray:
        return self.records.lines(positions)

    def digest(self) -> bytes | None:
        return self.records.digest()


def _unfolded(record: Record) -> Record:
    texts = record.values.get(NAME)
    others = {name: value for name, value in record.values.items() if name != NAME}
    return Record(record.line, {**(texts if isinstance(texts, Mapping) else {}), **others})
