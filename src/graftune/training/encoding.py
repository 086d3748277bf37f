"""Encoding: the rows of a table as features, in memory where they are few, else once into Arrow files on the disk.

The files lie in the cache of `datasets`, under a key of the data, the task, the template and the tokenizer, so that a
second run finds them. Images are encoded each time they are used: their pixels would fill any cache.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, overload

import numpy
from datasets.arrow_writer import ArrowWriter

from datasets import Dataset, concatenate_datasets, config, disable_progress_bars
from graftune import files
from graftune.datasets.rows import Row, Table
from graftune.tasks import registry
from graftune.tasks.bound import BoundTask
from graftune.tasks.extract import Window
from graftune.tasks.features import Features, PromptEncoder, TooLong
from graftune.tasks.tag import Words
from graftune.tasks.writing import BoundWriting, Pair

LARGE = 20_000  # rows; fewer are kept in memory
CHUNK = 500  # rows that the tokenizer reads at once
SUMMARY = "summary.json"
KINDS: dict[str, type[Features]] = {kind.__name__: kind for kind in (Features, Pair, Words, Window)}


@dataclass(frozen=True)
class EncodedTable:
    """Features of the rows of a table, how many of them were cut, and what is wrong with rows that do not fit."""

    features: Sequence[Features]
    truncated: int
    too_long: dict[int, str]


def encode_table(table: Table, task: BoundTask, encoder: PromptEncoder, processes: int | None = None) -> EncodedTable:
    """The features of all rows that fit; many rows go to the disk, in `processes` (by default one for each core)."""
    if task.task.processor != "AutoTokenizer" and len(table.rows) > LARGE:
        return EncodedTable(LazyFeatures(table.rows, task, encoder), 0, {})
    if len(table.rows) <= LARGE:
        too_long: dict[int, str] = {}
        found = list(_encoded(table.rows, task, encoder, too_long))
        return EncodedTable(found, sum(f.truncated for f in found), too_long)
    return _stored(table, task, encoder, processes or len(os.sched_getaffinity(0)))


def _encoded(
    rows: Sequence[Row], task: BoundTask, encoder: PromptEncoder, too_long: dict[int, str]
) -> Iterator[Features]:
    for chunk in batched(rows, CHUNK):
        try:
            for row, features in zip(chunk, task.encode_many(chunk, encoder), strict=True):
                yield from _checked(row, features, task, encoder)
        except TooLong:  # some row of the chunk
            for row in chunk:
                try:
                    yield from _checked(row, task.encode(row, encoder), task, encoder)
                except TooLong as error:
                    too_long[row.line] = f"{error.problem.partition(': ')[2]}: {error.received}, not {error.expected}"


def _checked(row: Row, features: Sequence[Features], task: BoundTask, encoder: PromptEncoder) -> Sequence[Features]:
    """The features of a row. Raises GraftuneError for ids that the base has no row for."""
    for one in features:
        encoder.check(row.line, one.ids, one.labels if isinstance(task, BoundWriting) else ())
    return features


def batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """The rows in lists of `size`."""
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk


class NotHeld(Sequence[Features], ABC):
    """Features that are not held in memory: one at a time, or some of them, not held either."""

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Features]: ...
    def __getitem__(self, index: int | slice) -> Features | Sequence[Features]:
        return self._some(index) if isinstance(index, slice) else self._one(index)

    @abstractmethod
    def _one(self, index: int) -> Features: ...

    @abstractmethod
    def _some(self, index: slice) -> Sequence[Features]: ...


class LazyFeatures(NotHeld):
    """The features of rows that have one each, made when they are asked for."""

    def __init__(self, rows: Sequence[Row], task: BoundTask, encoder: PromptEncoder) -> None:
        self._rows, self._task, self._encoder = rows, task, encoder

    def __len__(self) -> int:
        return len(self._rows)

    def _one(self, index: int) -> Features:
        return self._task.encode(self._rows[index], self._encoder)[0]

    def _some(self, index: slice) -> Sequence[Features]:
        return LazyFeatures(self._rows[index], self._task, self._encoder)


class StoredFeatures(NotHeld):
    """Features in Arrow files, which the system maps into memory as they are read."""

    def __init__(self, dataset: Dataset, kind: type[Features]) -> None:
        self._dataset, self._kind = dataset, kind

    def __len__(self) -> int:
        return len(self._dataset)

    def _one(self, index: int) -> Features:
        return self._kind(**self._dataset[index])

    def _some(self, index: slice) -> Sequence[Features]:
        return StoredFeatures(self._dataset.select(range(*index.indices(len(self)))), self._kind)


def _stored(table: Table, task: BoundTask, encoder: PromptEncoder, processes: int) -> EncodedTable:
    """The features of a large table, from the cache or written into it."""
    folder = Path(config.HF_DATASETS_CACHE) / "graftune-features" / cache_key(table, task, encoder)
    if not (folder / SUMMARY).exists():
        files.write_folder(folder, lambda place: _write(table, task, encoder, processes, place))
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    disable_progress_bars()
    shards = [Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
    kind = KINDS[summary["kind"]]
    too_long = {int(line): problem for line, problem in summary["too_long"].items()}
    return EncodedTable(StoredFeatures(concatenate_datasets(shards), kind), summary["truncated"], too_long)


def cache_key(table: Table, task: BoundTask, encoder: PromptEncoder) -> str:
    """A digest of everything that features depend on."""
    backend = getattr(encoder.processor, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(encoder.processor.get_vocab(), sort_keys=True)
    parts = {
        "data": table.fingerprint,
        "task": registry.state_of(task.task),
        "config": task.config.to_json_string(use_diff=False),
        "template": encoder.template.text,
        "first_virtual_id": encoder.first_virtual_id,
        "max_length": encoder.max_length,
        "tokenizer": [type(encoder.processor).__name__, vocabulary, encoder.processor.chat_template],
        "versions": [version("graftune"), version("transformers")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _write(table: Table, task: BoundTask, encoder: PromptEncoder, processes: int, folder: Path) -> None:
    """Encode a share of the rows in each process, a file each."""
    bounds = [round(len(table.rows) * n / processes) for n in range(processes + 1)]
    shares = [(task, encoder, table.rows[a:b], folder, n) for n, (a, b) in enumerate(pairwise(bounds))]
    if processes > 1 and "fork" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("fork")  # the rows and the tokenizer are there already
        running = [context.Process(target=_write_share, args=share) for share in shares]
        for process in running:
            process.start()
        for process in running:
            process.join()
        if failed := [process.exitcode for process in running if process.exitcode]:
            raise RuntimeError(f"{len(failed)} of {processes} processes that tokenise have ended with {failed[0]}")
    else:
        for share in shares:
            _write_share(*share)
    notes = [json.loads((folder / f"{n:03d}.json").read_text()) for n in range(processes)]
    too_long = {line: problem for note in notes for line, problem in note["too_long"].items()}
    kind = next(note["kind"] for note in notes if note["kind"] is not None)
    summary = {"truncated": sum(note["truncated"] for note in notes), "too_long": too_long, "kind": kind}
    files.write_json(folder / SUMMARY, summary)


def _write_share(task: BoundTask, encoder: PromptEncoder, rows: Sequence[Row], folder: Path, number: int) -> None:
    """One process's rows as an Arrow file, and a note of what it left out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    too_long: dict[int, str] = {}
    truncated, kind = 0, None
    with ArrowWriter(path=str(folder / f"{number:03d}.arrow"), writer_batch_size=1000) as writer:
        for item in _encoded(rows, task, encoder, too_long):
            writer.write({field.name: _narrow(getattr(item, field.name)) for field in fields(item)})
            truncated += item.truncated
            kind = type(item).__name__
        writer.finalize()
    note = {"truncated": truncated, "too_long": too_long, "kind": kind}
    (folder / f"{number:03d}.json").write_text(json.dumps(note))


def _narrow(value: Any) -> Any:
    """Lists of ids with four bytes a number, half of what Arrow takes for Python's."""
    ids = isinstance(value, list) and (not value or isinstance(value[0], int))
    return numpy.asarray(value, numpy.int32) if ids else value
