"""Data sets of the Hub: `name[@config][:split]`."""

from __future__ import annotations

from graftune.datasets.sources.arrow import ArrowRecords
from graftune.datasets.sources.records import Records
from graftune.errors import GraftuneError


def read(source: str, files: str) -> Records:
    """The split `train` where none is named. Raises GraftuneError where it cannot be loaded."""
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        rows = datasets.load_dataset(name, *([config] if config else []), split=split or "train")
    except Exception as error:  # whatever the connection, the files or their script raise, the name is to be looked at
        raise GraftuneError(
            f"{source!r} is no existing file, and no Hub dataset of that name could be loaded",
            received=f"{type(error).__name__}: {error}",
            expected=f"a {files} file, or a dataset name[@config][:split]",
            do="check the path or the name, the config, the split, and the connection",
        ) from error
    return ArrowRecords(rows)
