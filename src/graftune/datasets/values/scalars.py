"""Text, numbers and words."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Reader = Callable[[Any, Path], Any]
_QUOTED = r"""'(?:[^'\\\n]|\\['"\\nrt])*'|"(?:[^"\\\n]|\\['"\\nrt])*\""""
_ITEM = re.compile(rf"{_QUOTED}|-?[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?")
_NUMPY_LIST = re.compile(rf"\[\s*(?:{_ITEM.pattern})(?:\s+(?:{_ITEM.pattern}))*\s*\]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class InvalidValue(ValueError):
    """A value that a task cannot use; the message completes "line 3: 'column' …"."""


def text(value: Any, folder: Path) -> str:
    """Text; numbers are written out, nothing else is guessed at."""
    if not isinstance(value, str | int | float):
        raise InvalidValue(f"is a {type(value).__name__}, not text")
    written = plain(value)
    if not written.strip():
        raise InvalidValue("is empty")
    return written


def plain(value: str | float) -> str:
    """Text that a tokenizer can read, empty or not."""
    try:
        written = str(value)
    except ValueError as error:  # an integer of more than 4300 digits
        raise InvalidValue("is a number too long to write out") from error
    if _HALF_PAIR.search(written):
        raise InvalidValue("holds half of a surrogate pair, which no tokenizer can read")
    return written


def number(value: Any, folder: Path) -> float:
    """A finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"is {short(value)}, not a number") from error
    if not math.isfinite(found):
        raise InvalidValue(f"is {short(value)}, not a finite number")
    return found


def numbers(value: Any, folder: Path) -> tuple[float, ...]:
    """One number, or a list of them; CSV has the list as JSON, or with spaces between."""
    if isinstance(value, str):
        value = parsed(value) if value.lstrip().startswith("[") else value.split()
    if not is_list(value):
        value = [value]
    if not value:
        raise InvalidValue("holds no number")
    return tuple(number(one, folder) for one in value)


def words(value: Any, folder: Path) -> tuple[str, ...]:
    """A list of words, or of their tags; CSV has it as JSON, as Python writes a list, or with spaces between."""
    if isinstance(value, str):
        value = _list_or_words(value)
    if not is_list(value) or not value:
        raise InvalidValue("is empty" if is_list(value) else "is not a list of words")
    return tuple(text(word, folder) for word in value)


def _list_or_words(value: str) -> Any:
    """`[` opens a list where `]` closes it; a sentence may start with a bracket, too."""
    if not value.lstrip().startswith("[") or value.split()[0] == "[":
        return value.split()
    return parsed(value)


def is_list(value: Any) -> bool:
    """A list of values, not the letters of a text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def parsed(value: str) -> Any:
    """A value written as JSON, or as Python or numpy writes it (pandas does so in CSV). Raises InvalidValue."""
    try:
        return json.loads(value)
    except RecursionError as error:
        raise InvalidValue("is JSON nested too deeply") from error
    except ValueError as error:
        broken = InvalidValue(f"is broken JSON ({error})")
    items = _without_commas(value.strip())
    if items is not None:
        return items
    try:
        return ast.literal_eval(_Arrays().visit(ast.parse(value.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise broken from None


class _Arrays(ast.NodeTransformer):
    """Puts the list in place of array([...], dtype=...), as pandas writes arrays within a list or an object."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        named = isinstance(node.func, ast.Name) and node.func.id == "array" and len(node.args) == 1
        return self.visit(node.args[0]) if named else node


def _without_commas(value: str) -> list[Any] | None:
    """The items of a list that numpy wrote, ['a' 'b'] or [1 2]; Python would join the texts of the first."""
    if not _NUMPY_LIST.fullmatch(value):
        return None
    items = [item[0] for item in _ITEM.finditer(value[1:-1])]
    return [ast.literal_eval(item) if item[0] in "'\"" else item for item in items]


def short(value: Any) -> str:
    """The value as Python writes it, its end left out where it is long."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of more than 300 digits"
    written = repr(value)
    return written if len(written) <= 80 else written[:77] + "…"
