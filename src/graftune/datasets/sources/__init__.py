"""Where rows come from: files of text or Parquet, folders, and data sets of the Hub.

A reader returns numbered records (column -> value) and the problems of the lines it could not
read, so that every bad line of a file can be reported at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graftune.datasets.sources import folders, hub
from graftune.datasets.sources.kinds import READERS, reader
from graftune.datasets.sources.plain import PACKED, plain
from graftune.datasets.sources.records import Record, Records
from graftune.datasets.sources.translations import unfolded
from graftune.errors import GraftuneError

__all__ = ["READERS", "Record", "Records", "load"]

FILES: Final = ", ".join(sorted(READERS))


def load(source: str | Path) -> Records:
    """Read a file, a folder, or a Hub dataset `name[@config][:split]` where neither is there.

    Raises GraftuneError: file missing, unknown extension, unreadable file, dataset not loadable.
    """
    if not str(source).strip():
        raise GraftuneError(
            "no data is named",
            received=repr(source),
            expected=f"a {FILES} file, a folder, or the name of a Hub dataset",
            do="name the data, or leave the option out",
        )
    path = Path(source)
    try:
        if path.is_file():
            return unfolded(_file(path))
        if path.is_dir():
            return unfolded(folders.read(path, _file, READERS))
    except OSError as error:
        raise GraftuneError(f"{source}: cannot be read", received=str(error), do="check the file") from error
    if "*" in str(source):
        return unfolded(folders.matching(str(source), _file))
    if isinstance(source, Path) or _looks_like_a_file(str(source)):
        raise GraftuneError(
            "no such file",
            received=str(source),
            expected=f"an existing {FILES} file, or the name of a Hub dataset",
            do=f"check the path; the current folder is {Path.cwd()}",
        )
    return unfolded(hub.read(str(source), FILES))


def _looks_like_a_file(source: str) -> bool:
    # A Hub name is `name` or `owner/name`; anything deeper, rooted or with our extensions is a path.
    ends = Path(source).suffix.lower()
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or ends in READERS or ends in PACKED


def _file(path: Path) -> Records:
    found = plain(path)
    records = reader(found.path)(found.path, str(path))
    records.folder = path.parent
    records.held = found.held
    return records
