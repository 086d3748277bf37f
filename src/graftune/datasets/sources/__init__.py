"""Where rows come from: files of text or Parquet, folders, and data sets of the Hub.

A reader returns numbered records (column -> value) and the problems of the lines it could not
read, so that every bad line of a file can be reported at once.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from graftune.datasets.sources import (
    arrow,
    conll,
    hub,
    image_folder,
    json_document,
    json_lines,
    separated,
    text,
    voc,
)
from graftune.datasets.sources.plain import PACKED, plain
from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError, unknown

__all__ = ["READERS", "HeldRecords", "Record", "Records", "load"]

Reader = Callable[[Path, str], Records]
HEAD = 2**16  # bytes that tell what a file is

READERS: Final[dict[str, Reader]] = {
    **dict.fromkeys((".jsonl", ".ndjson"), json_lines.read),
    ".json": json_document.read,
    ".csv": separated.read,
    ".tsv": separated.read_tabs,
    ".txt": text.read,
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), conll.read),
    ".parquet": arrow.parquet,
}
FILES: Final = ", ".join(sorted(READERS))


def load(source: str | Path) -> Records:
    """Read a file, a folder, or a Hub dataset `name[@config][:split]` where neither is there.

    Raises GraftuneError: file missing, unknown extension, unreadable file, dataset not loadable.
    """
    path = Path(source)
    try:
        if path.is_file():
            return _file(path)
        if path.is_dir():
            return _folder(path)
    except OSError as error:
        raise GraftuneError(f"{source}: cannot be read", received=str(error), do="check the file") from error
    if "*" in str(source):
        return _matching(str(source))
    if isinstance(source, Path) or _looks_like_a_file(str(source)):
        raise GraftuneError(
            "no such file",
            received=str(source),
            expected=f"an existing {FILES} file, or the name of a Hub dataset",
            do=f"check the path; the current folder is {Path.cwd()}",
        )
    return hub.read(str(source), FILES)


def _looks_like_a_file(source: str) -> bool:
    # A Hub name is `name` or `owner/name`; anything deeper, rooted or with our extensions is a path.
    ends = Path(source).suffix.lower()
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or ends in READERS or ends in PACKED


def _file(path: Path) -> Records:
    """By what is in the file; its extension decides where that leaves a choice."""
    found = plain(path)
    records = _reader(found.path)(found.path, str(path))
    records.folder = path.parent
    records.held = found.held
    return records


def _reader(path: Path) -> Reader:
    """How to read a file. Raises GraftuneError where neither its extension nor its content tells."""
    ends = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(HEAD)
        whole = not file.read(1)
    if head.startswith(b"PAR1") or ends == ".parquet":
        return arrow.parquet
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"{" and ends not in (".txt", *READERS_OF_COLUMNS):
        return _of_objects(head, ends)
    if start == b"[" and _is_list(head):
        return json_document.read
    if ends in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *READERS_OF_COLUMNS) and start in (b"{", b"[", b""):
        return READERS[ends]
    written = head.decode("utf-8-sig", "replace")
    written = written if whole else written.rpartition("\n")[0]
    if ends in (".txt", "") and conll.looks_like_it(written):
        return conll.read
    if ends in (".jsonl", ".ndjson", ".json") or ends not in READERS:
        if _is_table(written):
            return separated.read
        if ends not in READERS:
            raise unknown("file extension", path.suffix or path.name, [*READERS, *PACKED])
    return READERS[ends]


READERS_OF_COLUMNS: Final = (".conll", ".bio", ".iob", ".iob2")


def _of_objects(head: bytes, ends: str) -> Reader:
    """An object a line, or one document: a document's first line is no whole object, or its only one."""
    lines = [line for line in head.split(b"\n") if line.strip()]
    try:
        json_lines.parse(lines[0].removeprefix(b"\xef\xbb\xbf"))
    except InvalidValue:
        several = len(lines) > 1 and lines[1].lstrip().startswith(b"{")
        return json_lines.read if several or ends in (".jsonl", ".ndjson") else json_document.read
    if len(lines) == 1 and ends not in (".jsonl", ".ndjson"):
        return json_document.read
    return json_lines.read


def _is_list(head: bytes) -> bool:
    """A list of objects rather than text in brackets."""
    return re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*(\{|\]|$)", head) is not None


def _is_table(written: str) -> bool:
    """Whether every row has as many fields as the first, and more than one."""
    try:
        found = separated.sniffed(written, "")
    except GraftuneError:
        return False
    return len(found.header) > 1 and len(found.rows) > 1 and not found.bad


def _folder(folder: Path) -> Records:
    """What is in a folder. Raises GraftuneError where it is no data set, or more than one."""
    records = _data_of(folder)
    if records is None:
        raise image_folder.splits(folder) or GraftuneError(
            "the data is a folder, not a file",
            received=str(folder),
            expected=f"a {FILES} file, or a folder of Pascal VOC files (.xml), of Parquet files, of images by class, "
            "of images with metadata.jsonl, or of save_to_disk",
            do="name one file in it",
        )
    records.folder = folder
    return records


def _data_of(folder: Path) -> Records | None:
    if arrow.is_saved(folder):
        return arrow.saved(folder)
    if any(folder.glob("*.xml")):
        return voc.read(folder)
    for place in (folder, folder / "data"):
        if paths := sorted(place.glob("*.parquet")):
            return arrow.shards(_one_set(paths, folder), str(folder))
    for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet"):
        if (folder / name).is_file():
            return _file(folder / name)
    documents = sorted(folder.glob("*.json"))
    if len(documents) == 1:
        return _file(documents[0])
    return image_folder.read(folder) if image_folder.classes(folder) else None


def _one_set(paths: list[Path], folder: Path) -> list[Path]:
    """The files, which differ in numbers alone. Raises GraftuneError where they are several sets (train-, test-)."""
    sets: dict[str, list[Path]] = {}
    for path in paths:
        sets.setdefault(re.sub(r"\d+", "*", path.name), []).append(path)
    if len(sets) > 1:
        raise GraftuneError(
            "the folder holds several data sets",
            received=f"{folder} with {', '.join(sets)}",
            expected="Parquet files whose names differ in their numbers alone",
            do=f"name one of them, in quotes: '{paths[0].parent / next(iter(sets))}'",
        )
    return paths


def _matching(pattern: str) -> Records:
    """The Parquet files that a pattern names."""
    paths = [Path(path) for path in sorted(glob.glob(pattern))]
    if not paths or any(path.suffix.lower() != ".parquet" for path in paths):
        raise GraftuneError(
            "the pattern names no Parquet files" if not paths else "the pattern names files that are not Parquet",
            received=f"{pattern}: {', '.join(path.name for path in paths[:5]) or 'nothing'}",
            expected="Parquet files, which are read as one",
            do="correct the pattern, or name one file",
        )
    records = arrow.shards(paths, pattern)
    records.folder = paths[0].parent
    return records
