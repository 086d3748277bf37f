"""The csv of a benchmark: a row for each measured run, with what its figures depend on."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Record = dict[str, str]


class Records:
    """A new csv file that is complete after every row; the first row names the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        self.columns: list[str] = []

    def add(self, **row: Any) -> None:
        """Append a run."""
        whole = {**row, **environment()}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            if not self.columns:
                self.columns = list(whole)
                csv.writer(file).writerow(self.columns)
            csv.DictWriter(file, self.columns).writerow(whole)


def environment() -> dict[str, str]:
    """The machine and the versions."""
    names = ("graftune", "torch", "transformers", "peft")
    return {"cpu": _cpu(), "python": platform.python_version(), **{name: version(name) for name in names}}


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def read(path: Path) -> list[Record]:
    """The rows of a csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def where(rows: Iterable[Record], **values: object) -> list[Record]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == str(value) for key, value in values.items())]


def numbers(rows: Iterable[Record], column: str) -> list[float]:
    """A column's numbers."""
    return [float(row[column]) for row in rows]
