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
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(shown, error) from error


def not_utf8(shown: str, error: UnicodeDecodeError, before: int = 0) -> GraftuneError:
    """The error for a file whose part after `before` bytes is no UTF-8."""
    return GraftuneError(
        f"{shown}: not UTF-8 text",
        received=f"byte {error.object[error.start]:#04x} at offset {before + error.start}",
        expected="UTF-8",
        do="convert the file to UTF-8",
    )
