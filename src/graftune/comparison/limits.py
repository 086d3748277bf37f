"""Limits of what a user can afford: stored bytes, peak memory, milliseconds for an answer alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from graftune.comparison.summary import MethodRow, Stat
from graftune.comparison.units import size_in_bytes
from graftune.errors import GraftuneError, unknown

#: What can be limited: what of a row it is, and its units as factors of the row's own.
_BYTES: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
KINDS: Final[dict[str, tuple[Callable[[MethodRow], Stat | None], Mapping[str, float]]]] = {
    "stored": (lambda row: row.bytes_stored, _BYTES),
    "memory": (lambda row: row.peak_memory_bytes, _BYTES),
    "ms": (lambda row: row.latency, {"": 1e-3, "ms": 1e-3, "s": 1.0}),
}


def read(given: Mapping[str, str]) -> dict[str, float]:
    """Limits in bytes and seconds, of `stored=1MB`, `memory=2GB`, `ms=20`.

    Raises GraftuneError for what cannot be limited, and for a size that is none.
    """
    found = {}
    for name, text in given.items():
        if name not in KINDS:
            raise unknown("limit", name, KINDS)
        units = {unit.lower(): factor for unit, factor in KINDS[name][1].items()}
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
        unit = match[2].lower() if match else ""
        if match is None or unit not in units or match[1].count(".") > 1:
            raise GraftuneError(
                f"the limit of {name} cannot be read",
                received=repr(text),
                expected=f"a number with one of the units {', '.join(filter(None, KINDS[name][1]))}",
                do="write it such as --limit stored=1MB, --limit ms=20",
            )
        found[name] = float(match[1]) * units[unit]
    return found


def within(row: MethodRow, name: str, limit: float) -> bool:
    """Whether what was measured of a row is known to be within a limit."""
    stat = KINDS[name][0](row)
    return stat is not None and stat.mean <= limit


def shown(name: str, limit: float) -> str:
    """A limit in words, such as "at most 1 MiB stored"."""
    if name == "ms":
        return f"at most {1000 * limit:g} ms an answer"
    return f"at most {size_in_bytes(limit)} {'stored' if name == 'stored' else 'of memory in training'}"
