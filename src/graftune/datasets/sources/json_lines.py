"""JSON lines: an object a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import orjson

from graftune.datasets.sources.records import LineRecords, Records, decoded
from graftune.datasets.values import InvalidValue

_LONG_NUMBER = re.compile(rb"[0-9]{19}")  # orjson rounds whole numbers beyond 64 bits, json keeps them


def read(path: Path, shown: str) -> Records:
    """The objects of a .jsonl file; a line that is none is a problem, and an empty one is passed over."""
    return LineRecords(path, parse)


def parse(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None for an empty one. Raises InvalidValue."""
    if not line.strip():
        return None
    values = _loaded(line)
    if not isinstance(values, dict):
        raise InvalidValue(f"a JSON {type(values).__name__} where an object was expected")
    return values


def _loaded(line: bytes) -> Any:
    if not _LONG_NUMBER.search(line):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass  # NaN and halves of surrogate pairs are JSON to Python, and json says best what is broken
    try:
        return json.loads(decoded(line))
    except RecursionError as error:
        raise InvalidValue("broken JSON (nested too deeply)") from error
    except ValueError as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"broken JSON ({error})") from error
