"""Arrow tables: Parquet files, folders that `datasets` saved, and data sets of the Hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from graftune.datasets.sources.records import Record, Records
from graftune.errors import GraftuneError

AT_ONCE = 256  # rows that become Python objects at a time
IN_MEMORY = 2**28  # bytes of Parquet that are held as Arrow; what is larger is mapped from the disk
ARROW = b"ARROW1"  # what an Arrow file with a footer starts with, Feather's too
Naming = Callable[[Any], Any]


class ArrowRecords(Records):
    """The rows of a `datasets.Dataset`, with the names of its classes; what it maps from disk stays there."""

    def __init__(self, dataset: Any) -> None:
        names = {name: naming(feature) for name, feature in dataset.features.items()}
        self.names = {name: function for name, function in names.items() if function}
        self.dataset = dataset.with_format("arrow")  # as stored: images stay bytes and paths
        self.columns = list(dataset.column_names)
        self.problems = {}
        self.total = len(dataset)

    def scan(self) -> Iterator[tuple[int, Record]]:
        return enumerate(self.at(range(self.total)))

    def at(self, positions: Iterable[int]) -> Iterator[Record]:
        waiting = iter(positions)
        while batch := list(itertools.islice(waiting, AT_ONCE)):
            for position, values in zip(batch, self.dataset[batch].to_pylist(), strict=True):
                for name, function in self.names.items():
                    values[name] = function(values[name])
                yield Record(position + 1, values)


def naming(feature: Any) -> Naming | None:
    """What puts the names of classes in place of their numbers, however deep they are; None where there are none."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        known = feature.names or []
        return lambda value: known[value] if isinstance(value, int) and 0 <= value < len(known) else None
    if isinstance(feature, datasets.List | datasets.LargeList):
        inner = naming(feature.feature)
    elif isinstance(feature, list) and len(feature) == 1:
        inner = naming(feature[0])
    elif isinstance(feature, dict):
        parts = {name: function for name, one in feature.items() if (function := naming(one))}
        return (lambda value: _named(value, parts)) if parts else None
    else:
        return None
    if inner is None:
        return None
    return lambda values: None if values is None else [inner(value) for value in values]


def _named(value: Any, parts: dict[str, Naming]) -> Any:
    if value is None:
        return None
    return value | {name: function(value[name]) for name, function in parts.items() if name in value}


def parquet(path: Path, shown: str) -> Records:
    """A .parquet file. Raises GraftuneError where it cannot be read."""
    return shards([path], shown)


def shards(paths: Sequence[Path], shown: str) -> Records:
    """Parquet files in a row. Raises GraftuneError where they cannot be read as one table."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    import datasets

    try:
        if sum(path.stat().st_size for path in paths) > IN_MEMORY:
            return ArrowRecords(datasets.Dataset.from_parquet([str(path) for path in paths]))
        tables = [pyarrow.parquet.read_table(path, partitioning=None) for path in paths]
        try:
            whole = pyarrow.concat_tables(tables, promote_options="default")
        except pyarrow.ArrowException as error:
            raise GraftuneError(
                f"{shown}: files that are not one table",
                received=f"{', '.join(path.name for path in paths[:3])}: {error}",
                expected="the same columns in each, of the same types",
                do="name one of them",
            ) from error
        return ArrowRecords(datasets.Dataset(whole.replace_schema_metadata(tables[0].schema.metadata)))
    except GraftuneError:
        raise
    except Exception as error:  # a broken file or foreign metadata: pyarrow and datasets raise almost anything
        raise unreadable(shown, "Parquet file", error) from error


def stored(path: Path, shown: str) -> Records:
    """An .arrow or Feather file, mapped from the disk. Raises GraftuneError where it cannot be read."""
    import pyarrow

    import datasets

    try:
        with path.open("rb") as file:
            streamed = file.read(len(ARROW)) != ARROW
        if streamed:  # as `datasets` writes it
            return ArrowRecords(datasets.Dataset.from_file(str(path)))
        return ArrowRecords(datasets.Dataset(pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()))
    except Exception as error:  # as above
        raise unreadable(shown, "Arrow file", error) from error


def saved(folder: Path) -> Records:
    """A folder of `Dataset.save_to_disk`, or the split `train` of one of `DatasetDict.save_to_disk`."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # as above
        raise unreadable(str(folder), "folder of save_to_disk", error) from error
    if not isinstance(found, datasets.DatasetDict):
        return ArrowRecords(found)
    if "train" not in found:
        raise GraftuneError(
            "the folder holds several splits",
            received=f"{folder} with {', '.join(found)}",
            expected="one split, or one of them named train",
            do=f"name one of them: {folder / next(iter(found), '')}",
        )
    records = ArrowRecords(found["train"])
    if others := [str(folder / name) for name in found if name != "train"]:
        records.remarks = (f"the split 'train' is read; there are also {', '.join(others)}",)
    return records


def is_saved(folder: Path) -> bool:
    """Whether `datasets` wrote the folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def unreadable(shown: str, what: str, error: Exception) -> GraftuneError:
    return GraftuneError(
        f"{shown}: not a readable {what}", received=f"{type(error).__name__}: {error}", do="write it again"
    )
