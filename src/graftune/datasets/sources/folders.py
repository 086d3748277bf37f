"""What is in a folder."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path

from graftune.datasets.sources import arrow, image_folder, voc
from graftune.datasets.sources.records import Records
from graftune.errors import GraftuneError


def read(folder: Path, file: Callable[[Path], Records], files: str) -> Records:
    """The data set that a folder is; `file` reads a file in it. Raises GraftuneError for none, or more than one."""
    records = _data_of(folder, file)
    if records is None:
        raise image_folder.splits(folder) or GraftuneError(
            "the data is a folder, not a file",
            received=str(folder),
            expected=f"a {files} file, or a folder of Pascal VOC files (.xml), of Parquet files, of images by class, "
            "of images with metadata.jsonl, or of save_to_disk",
            do="name one file in it",
        )
    records.folder = folder
    return records


def _data_of(folder: Path, file: Callable[[Path], Records]) -> Records | None:
    if arrow.is_saved(folder):
        return arrow.saved(folder)
    if any(folder.glob("*.xml")):
        return voc.read(folder)
    for place in (folder, folder / "data"):
        if paths := sorted(place.glob("*.parquet")):
            return arrow.shards(_one_set(paths, folder), str(folder))
    for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet"):
        if (folder / name).is_file():
            return file(folder / name)
    documents = sorted(folder.glob("*.json"))
    if len(documents) == 1:
        return file(documents[0])
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


def matching(pattern: str) -> Records:
    """The Parquet files that a pattern names. Raises GraftuneError for none, and for files that are no Parquet."""
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
