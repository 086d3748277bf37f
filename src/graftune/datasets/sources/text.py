"""Plain text: a line a text."""

from __future__ import annotations

from pathlib import Path

from graftune.datasets.sources.records import LineRecords, Records, decoded
from graftune.errors import GraftuneError


def read(path: Path, shown: str) -> Records:
    """The lines of a .txt file in a column `text`; empty ones hold no text and are passed over."""
    return LineRecords(path, _line)


def _line(line: bytes) -> dict[str, str] | None:
    text = decoded(line).rstrip("\r\n")
    return {"text": text} if text.strip() else None


def whole(path: Path, shown: str) -> str:
    """The text of a UTF-8 file, without its byte-order mark if it has one. Raises GraftuneError."""
    try:
        # newline="" keeps line breaks inside quoted fields of CSV
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise GraftuneError(
            f"{shown}: not UTF-8 text",
            received=f"byte {error.object[error.start]:#04x} at offset {error.start}",
            expected="UTF-8",
            do="convert the file to UTF-8",
        ) from error
