"""Plain text: a line a text."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

from graftune.datasets.sources.records import LineRecords, Records, decoded
from graftune.errors import GraftuneError

LABEL = "__label__"  # what fastText puts before a label


def read(path: Path, shown: str) -> Records:
    """The lines of a .txt file in a column `text`; empty ones hold no text and are passed over."""
    return LineRecords(path, _line)


def read_labelled(path: Path, shown: str) -> Records:
    """fastText's lines: `__label__` and a name, once or more, and the text; columns `text` and `label`."""
    return LineRecords(path, _labelled)


def is_labelled(head: bytes) -> bool:
    """Whether every line begins with a label of fastText."""
    lines = [line for line in head.split(b"\n") if line.strip()]
    return bool(lines) and all(line.startswith(LABEL.encode()) for line in lines)


def _labelled(line: bytes) -> dict[str, Any] | None:
    words = decoded(line).split()
    labels = [word.removeprefix(LABEL) for word in takewhile(lambda word: word.startswith(LABEL), words)]
    text = " ".join(words[len(labels) :])
    if not words:
        return None
    return {"text": text, "label": labels[0] if len(labels) == 1 else labels}


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
