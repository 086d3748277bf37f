"""Where rows come from: JSON lines, CSV, Parquet, a folder of Pascal VOC files, or a dataset on the Hub.

A reader returns numbered records (column -> value) and the problems of the lines it could not
read, so that every bad line of a file can be reported at once.
"""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from graftune.errors import GraftuneError, unknown

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LONGEST_FIELD = 2**30  # csv refuses fields over 128 KiB, and a document to summarise may be longer


class Record(NamedTuple):
    """One row as it was found; `line` counts from 1."""

    line: int
    values: dict[str, Any]


class Raw(NamedTuple):
    """What a reader found: good records, the columns in order of appearance, and bad lines."""

    records: list[Record]
    columns: list[str]
    problems: dict[int, str]


def load(source: str | Path) -> Raw:
    """Read a file by its extension, or a Hub dataset `name[:split]` when no such file exists.

    Raises GraftuneError: file missing, unknown extension, unreadable file, dataset not loadable.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() not in READERS:
            raise unknown("file extension", path.suffix or path.name, READERS)
        return READERS[path.suffix.lower()](path)
    if path.is_dir() and any(path.glob("*.xml")):
        return _voc(path)
    if path.is_dir():
        raise GraftuneError(
            "the data is a folder, not a file",
            received=str(source),
            expected="a " + ", ".join(sorted(READERS)) + " file, or a folder of Pascal VOC files (.xml)",
            do="name one file in it",
        )
    if isinstance(source, Path) or _looks_like_a_file(str(source)):
        raise GraftuneError(
            "no such file",
            received=str(source),
            expected="an existing " + ", ".join(sorted(READERS)) + " file, or the name of a Hub dataset",
            do=f"check the path; the current folder is {Path.cwd()}",
        )
    return _hub(str(source))


def _looks_like_a_file(source: str) -> bool:
    # A Hub name is `name` or `owner/name`; anything deeper, rooted or with our extensions is a path.
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).suffix.lower() in READERS


def _jsonl(path: Path) -> Raw:
    records: list[Record] = []
    columns: dict[str, None] = {}
    problems: dict[int, str] = {}
    lines = _text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            problems[number] = "empty line"
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            problems[number] = f"broken JSON ({error})"
            continue
        except RecursionError:
            problems[number] = "broken JSON (nested too deeply)"
            continue
        if not isinstance(values, dict):
            problems[number] = f"a JSON {type(values).__name__} where an object was expected"
            continue
        columns.update(dict.fromkeys(values))
        records.append(Record(number, values))
    return Raw(records, list(columns), problems)


def _csv(path: Path) -> Raw:
    # newline="" keeps line breaks as they are: a quoted field may hold some.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    before = csv.field_size_limit(LONGEST_FIELD)
    start = 1
    try:
        for fields in reader:
            rows.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise GraftuneError(
            f"{path}: broken CSV in the record that starts on line {start}",
            received=str(error),
            expected='comma-separated fields, with " doubled inside quoted ones',
            do="close the quotes, or save the file as .jsonl",
        ) from error
    finally:
        csv.field_size_limit(before)
    while rows and not rows[-1][1]:
        rows.pop()
    if not rows:
        return Raw([], [], {})
    columns = rows[0][1]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise GraftuneError(
            f"{path}: a column name occurs twice",
            received=", ".join(map(repr, twice)),
            expected="a header line with distinct names",
            do="rename one of them",
        )
    records: list[Record] = []
    problems: dict[int, str] = {}
    for line, fields in rows[1:]:
        if not fields:
            problems[line] = "empty line"
        elif len(fields) != len(columns):
            problems[line] = f"{len(fields)} fields where the header has {len(columns)}"
        else:
            records.append(Record(line, dict(zip(columns, fields, strict=True))))
    return Raw(records, columns, problems)


def _parquet(path: Path) -> Raw:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise GraftuneError(
            f"{path}: not a readable Parquet file", received=str(error), do="write the file again"
        ) from error
    records = [Record(number, values) for number, values in enumerate(table.to_pylist(), start=1)]
    return Raw(records, list(table.column_names), {})


def _voc(folder: Path) -> Raw:
    """The .xml files of a folder in order of their names, each with its image beside it."""
    records: list[Record] = []
    problems: dict[int, str] = {}
    for number, file in enumerate(sorted(folder.glob("*.xml")), start=1):
        try:
            root = ElementTree.parse(file).getroot()
            objects = [
                {
                    "label": (one.findtext("name") or "").strip(),
                    "box": [float(one.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")],
                }
                for one in root.iter("object")
            ]
        except (ElementTree.ParseError, ValueError) as error:
            problems[number] = f"{file.name}: not a Pascal VOC file ({error})"
            continue
        beside = [p.name for p in folder.glob(f"{file.stem}.*") if p.suffix.lower() in IMAGES]
        image = beside[0] if beside else root.findtext("filename") or f"{file.stem}.jpg"
        records.append(Record(number, {"image": image, "objects": objects}))
    return Raw(records, ["image", "objects"], problems)


def _hub(source: str) -> Raw:
    import datasets

    name, _, split = source.partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise GraftuneError(
            f"{source!r} is no existing file, and no Hub dataset of that name could be loaded",
            received=f"{type(error).__name__}: {error}",
            expected="a " + ", ".join(sorted(READERS)) + " file, or a dataset name[:split]",
            do="check the path or the name, the split, and the connection",
        ) from error
    records = [Record(number, dict(values)) for number, values in enumerate(rows, start=1)]
    return Raw(records, list(rows.column_names), {})


def _text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte-order mark if it has one."""
    try:
        # newline="" keeps line breaks inside quoted CSV fields; JSON takes a trailing \r as space.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise GraftuneError(
            f"{path}: not UTF-8 text",
            received=f"byte {error.object[error.start]:#04x} at offset {error.start}",
            expected="UTF-8",
            do="convert the file to UTF-8",
        ) from error


READERS: dict[str, Callable[[Path], Raw]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
