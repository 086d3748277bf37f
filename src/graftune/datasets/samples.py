"""Sample data that ships with the package, to try every method without data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from graftune.errors import GraftuneError

#: The set that a task is shown on where the user gives no data; `tools/make_samples.py` writes the files.
SETS: Final[dict[str, str]] = {"generate": "table-to-text", "classify": "text-to-label"}


def name(task: str) -> str:
    """What the task's sample set is called. Raises GraftuneError for a task without one."""
    if task not in SETS:
        raise GraftuneError(
            f"no sample data for the task {task!r} comes with Graftune",
            received="neither --train nor --eval",
            expected="your own data; samples are there for " + " and ".join(SETS),
            do="give --train FILE",
        )
    return SETS[task]


def path(split: Literal["train", "dev"], task: str = "generate") -> Path:
    """The JSON Lines file of a split. Raises GraftuneError for a task without sample data."""
    return Path(__file__).parent / "samples" / name(task) / f"{split}.jsonl"
