"""Labels: the text of a class, in one spelling."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from graftune.datasets.values.scalars import InvalidValue, is_list, parsed, short, text

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")  # 1.0 and 1., but not 01.0, which is a code
LARGEST_EXACT = 2**53


def label(value: Any, folder: Path) -> str:
    """The text of one class without the space around it.

    A whole number is written whole (1, 1.0, "1" and "1.0" are one class), and true, True, "true" and "True" are "true".
    Letters with accents are one sign each (NFC), however they were typed.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value or abs(value) == float("inf"):
            raise InvalidValue(f"is {value}, not a class")
        if value.is_integer() and abs(value) <= LARGEST_EXACT:
            value = int(value)
    written = unicodedata.normalize("NFC", text(value, folder)).strip()
    if written.lower() in ("true", "false"):
        return written.lower()
    if whole := _WHOLE.fullmatch(written):
        written = whole[1]
    return "0" if written == "-0" else written


def labels(value: Any, folder: Path) -> tuple[str, ...]:
    """The classes of a row with any number of them, each once; an empty list or text means none.

    A list, a JSON list, or text with `|`, else `;`, else `,` between. Raises InvalidValue for a list of ones and zeros
    that says by its places which classes there are: it has no names.
    """
    if isinstance(value, str):
        if value.strip().startswith("[") and value.strip().endswith("]"):
            value = parsed(value)
        else:
            between = next((sign for sign in "|;," if sign in value), ",")
            value = [part for part in value.split(between) if part.strip()]
    if not is_list(value):
        value = [value]
    found = tuple(label(one, folder) for one in value)
    if any(isinstance(one, bool) for one in value) or (set(found) <= {"0", "1"} and len(found) > len(set(found))):
        raise InvalidValue(f"has ones and zeros ({short(list(value))}) where the names of its classes were expected")
    return tuple(dict.fromkeys(found))
