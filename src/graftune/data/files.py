"""The embedded sets as JSON Lines files in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from graftune.data.labels import text_to_label
from graftune.data.splits import Split, table_to_text
from graftune.errors import GraftuneError

#: The set that a task is shown on where the user gives no data.
SETS: Final[dict[str, Callable[[Split], list[dict[str, str]]]]] = {
    "generate": table_to_text,
    "classify": text_to_label,
}


def name(task: str) -> str:
    """What the task's set is called."""
    return _set(task).__name__.replace("_", "-")


def write(folder: str | Path, task: str = "generate") -> list[Path]:
    """Write ``train.jsonl`` and ``dev.jsonl`` into the folder and return their paths."""
    return [_written(Path(folder) / f"{split}.jsonl", _lines(split, task)) for split in get_args(Split)]


def path(split: Split, task: str = "generate") -> Path:
    """A split of the task's set as a JSON Lines file in the user's cache, written on first use.

    The folder's name is a digest of the content, so another version of the grammar has files of its own.
    Raises GraftuneError for a task without an embedded set.
    """
    content = _lines(split, task)
    place = Path(hashlib.sha256(content).hexdigest()[:12]) / f"{split}.jsonl"
    try:
        return _written(_cache() / place, content)
    except OSError:  # a home that cannot be written to, as in many containers
        return _written(Path(tempfile.gettempdir()) / "graftune-data" / place, content)


def _lines(split: Split, task: str) -> bytes:
    """The split as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in _set(task)(split)).encode()


def _set(task: str) -> Callable[[Split], list[dict[str, str]]]:
    if task not in SETS:
        raise GraftuneError(
            f"no data set for the task {task!r} comes with Graftune",
            received="neither --train nor --eval",
            expected="your own data; sets of its own have " + " and ".join(SETS),
            do="give --train FILE and --eval FILE",
        )
    return SETS[task]


def _cache() -> Path:
    """The folder for files that can be made again, by the custom of the platform."""
    if chosen := os.environ.get("GRAFTUNE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "graftune" / "data"


def _written(file: Path, content: bytes) -> Path:
    """The file with this content; it appears whole or not at all, also beside other processes."""
    if file.is_file() and file.read_bytes() == content:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(content)
    os.replace(part.name, file)
    return file
