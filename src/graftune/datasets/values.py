"""Cells: what one value of a column has to be, and what is wrong with one that is not.

Every reader takes the value and the folder that relative paths start from, and raises `InvalidValue` with a few words.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Reader = Callable[[Any, Path], Any]


class InvalidValue(ValueError):
    """A value that a task cannot use; the message completes "line 3: 'column' …"."""


def text(value: Any, folder: Path) -> str:
    """Text; numbers are written out, nothing else is guessed at."""
    if not isinstance(value, str | int | float):
        raise InvalidValue(f"is a {type(value).__name__}, not text")
    written = str(value)
    if not written.strip():
        raise InvalidValue("is empty")
    if any("\ud800" <= character <= "\udfff" for character in written):
        raise InvalidValue("holds half of a surrogate pair, which no tokenizer can read")
    return written


def number(value: Any, folder: Path) -> float:
    """A finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"is {value!r}, not a number") from error
    if not math.isfinite(found):
        raise InvalidValue(f"is {value!r}, not a finite number")
    return found


def words(value: Any, folder: Path) -> tuple[str, ...]:
    """A list of words, or of their tags; CSV has it as JSON, or as words with spaces between."""
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else value.split()
    if not isinstance(value, Sequence) or not value:
        raise InvalidValue("is not a list of words" if not isinstance(value, Sequence) else "is empty")
    return tuple(text(word, folder) for word in value)


def answers(value: Any, folder: Path) -> tuple[str, ...]:
    """One answer or several, as text, as a list, or as SQuAD has them: {"text": [...], "answer_start": [...]}."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = _json(value)
    if isinstance(value, Mapping):
        value = value.get("text", ())
    if isinstance(value, str | int | float):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise InvalidValue("holds no answer")
    return tuple(dict.fromkeys(text(answer, folder) for answer in value))


def image(value: Any, folder: Path) -> Path | bytes:
    """The file of an image, or its bytes as data sets of the Hub have them; it is decoded once, as a test."""
    from PIL import Image

    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image):
        held = io.BytesIO()
        value.save(held, format="PNG")
        value = held.getvalue()
    if isinstance(value, str):
        value = folder / value
    if not isinstance(value, Path | bytes):
        raise InvalidValue(f"is a {type(value).__name__}, not an image or the path of one")
    try:
        with Image.open(value if isinstance(value, Path) else io.BytesIO(value)) as picture:
            picture.load()
    except FileNotFoundError as error:
        raise InvalidValue(f"names a file that is not there ({value!s})") from error
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: how Pillow calls a broken PNG
        raise InvalidValue(f"is no readable image ({error})") from error
    return value


def objects(value: Any, folder: Path) -> tuple[tuple[str, tuple[float, float, float, float]], ...]:
    """Labels with boxes (left, top, right, bottom) in pixels.

    A list of {"label": …, "box": [left, top, right, bottom]}, or as COCO data sets of the Hub have them:
    {"category": […], "bbox": [[left, top, width, height], …]}.
    """
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, Mapping):
        labels, boxes = value.get("category", ()), value.get("bbox", ())
        if len(labels) != len(boxes):
            raise InvalidValue(f"has {len(labels)} labels and {len(boxes)} boxes")
        found = [(label, (x, y, x + w, y + h)) for label, (x, y, w, h) in zip(labels, boxes, strict=True)]
    elif isinstance(value, Sequence) and all(isinstance(one, Mapping) for one in value):
        if any("label" not in one or "box" not in one for one in value):
            raise InvalidValue('has an object without "label" or "box"')
        found = [(one["label"], tuple(one["box"])) for one in value]
    else:
        raise InvalidValue("is not a list of objects")
    for label, box in found:
        if len(box) != 4:
            raise InvalidValue(f"has a box of {len(box)} numbers for {label!r}")
    return tuple((text(label, folder), tuple(number(edge, folder) for edge in box)) for label, box in found)  # type: ignore[misc]


def messages(value: Any, folder: Path) -> tuple[tuple[str, str], ...]:
    """A conversation: (role, text) of every message."""
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise InvalidValue("is not a list of messages")
    named = [(one.get("role", one.get("from")), one.get("content", one.get("value"))) for one in value]
    roles = {"human": "user", "gpt": "assistant"}
    found = tuple((roles.get(str(role), str(role)), text(content, folder)) for role, content in named)
    if not any(role == "assistant" for role, _ in found):
        raise InvalidValue("has no message of the assistant")
    return found


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise InvalidValue(f"is broken JSON ({error})") from error
