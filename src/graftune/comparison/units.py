"""Numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

DASH: Final = "\N{EN DASH}"


def _scaled(value: float, base: float, units: Sequence[str], gap: str) -> str:
    unit = 0
    while unit < len(units) - 1 and abs(value) >= base * 0.9995:
        value, unit = value / base, unit + 1
    number = f"{value:.0f}" if value >= 99.95 or value == int(value) else f"{value:.3g}"
    return f"{number}{gap if units[unit] else ''}{units[unit]}"


def count(value: float) -> str:
    """``295k`` parameters."""
    return _scaled(value, 1000, ("", "k", "M", "B"), "")


def size_in_bytes(value: float) -> str:
    """``1.13 MiB``."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"), " ")


def energy(joules: float) -> str:
    """``1.5 kJ``; large ones in watt-hours, ``12 Wh``."""
    return (
        _scaled(joules, 1000, ("J", "kJ"), " ") if joules < 36e3 else _scaled(joules / 3600, 1000, ("Wh", "kWh"), " ")
    )


def duration(seconds: float) -> str:
    """``8.3 s``, ``2 min 05 s``, ``1 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """``0.24 %``."""
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"
