"""What is in a folder."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection
from pathlib import Path

from graftune.datasets.sources import arrow, image_folder, voc, yolo
from graftune.datasets.sources.joined import Joined
from graftune.datasets.sources.places import ANNOTATIONS, hidden
from graftune.datasets.sources.plain import PACKED
from graftune.datasets.sources.records import Records
from graftune.errors import GraftuneError


def read(folder: Path, file: Callable[[Path], Records], files: Collection[str]) -> Records:
    """The data set that a folder is; `file` reads a file in it, which ends in one of `files`.

    Raises GraftuneError for none, or more than one.
    """
    records = _data_of(folder, file, files)
    if records is None:
        raise GraftuneError(
            "the data is a folder, not a file",
            received=str(folder),
            expected=f"a {', '.join(sorted(files))} file, or a folder of Pascal VOC files (.xml), of YOLO, of shards, "
            "of images by class, of images with metadata.jsonl, or of save_to_disk",
            do="name one file in it",
        )
    records.folder = folder
    return records


def _data_of(folder: Path, file: Callable[[Path], Records], files: Collection[str]) -> Records | None:
    if arrow.is_saved(folder):
        return arrow.saved(folder)
    if annotated := voc.place(folder):
        return voc.read(annotated)
    for place in (folder, folder / "data"):
        if paths := sorted(place.glob("*.parquet")):
            return arrow.shards(_one_set(paths, folder), str(folder))
    if labelled := yolo.place(folder):
        records = yolo.read(labelled)
        records.remarks = (f"the images in {labelled} are read",) * (labelled != folder)
        return records
    if metadata := image_folder.metadata(folder):
        return file(metadata)
    documents = [one for name in ANNOTATIONS for one in sorted((folder / name).glob("*.json"))]
    if not documents and len(image_folder.classes(folder)) > 1:
        return image_folder.read(folder)
    found = (
        documents or [one for one in sorted(folder.iterdir()) if _is_data(one, files)] or image_folder.splits(folder)
    )
    if found and all(one.is_file() for one in found) and len(_sets(found)) == 1:
        return _joined(found, file)
    if found:
        raise image_folder.several(folder, found)
    return image_folder.read(folder) if image_folder.classes(folder) else None


def _is_data(path: Path, files: Collection[str]) -> bool:
    """Whether a file in a folder is likely the data: by its extension; a .txt may be a licence."""
    ends = [end.lower() for end in path.suffixes[-2:]]
    ends = ends[:-1] if ends and ends[-1] in PACKED else ends
    return path.is_file() and not hidden(path) and bool(ends) and ends[-1] in files and ends[-1] != ".txt"


def _sets(paths: list[Path]) -> dict[str, list[Path]]:
    """Files by their names without numbers: shards of one set have one such name."""
    sets: dict[str, list[Path]] = {}
    for path in paths:
        sets.setdefault(re.sub(r"\d+", "*", path.name), []).append(path)
    return sets


def _joined(paths: list[Path], file: Callable[[Path], Records]) -> Records:
    """One file, or several as one data set, in the order of their numbers."""
    if len(paths) == 1:
        return file(paths[0])
    paths = sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    return Joined([file(path) for path in paths], [path.name for path in paths])


def _one_set(paths: list[Path], folder: Path) -> list[Path]:
    """The files, which differ in numbers alone. Raises GraftuneError where they are several sets (train-, test-)."""
    sets = _sets(paths)
    if len(sets) > 1:
        raise GraftuneError(
            "the folder holds several data sets",
            received=f"{folder} with {', '.join(sets)}",
            expected="Parquet files whose names differ in their numbers alone",
            do=f"name one of them, in quotes: '{paths[0].parent / next(iter(sets))}'",
        )
    return paths


def matching(pattern: str, file: Callable[[Path], Records]) -> Records:
    """The files that a pattern names, as one data set. Raises GraftuneError for none, and for folders."""
    paths = [Path(path) for path in sorted(glob.glob(pattern))]
    if not paths or not all(path.is_file() for path in paths):
        raise GraftuneError(
            "the pattern names no files" if not paths else "the pattern names folders",
            received=f"{pattern}: {', '.join(path.name for path in paths[:5]) or 'nothing'}",
            expected="files, which are read as one data set",
            do="correct the pattern, or name one file",
        )
    if any(path.suffix.lower() != ".parquet" for path in paths):
        return _joined(paths, file)
    records = arrow.shards(paths, pattern)
    records.folder = paths[0].parent
    return records
