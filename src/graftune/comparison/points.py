"""What a search tries: a rate, and values of a method's options where these are searched with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

#: Names and values of a method's options, in the order of the names.
Options = tuple[tuple[str, Any], ...]


class Point(NamedTuple):
    """A rate, and options where these are searched with it."""

    rate: float
    options: Options = ()


def options_of(given: Mapping[str, Any]) -> Options:
    """Options as a value that can be compared and counted: lists as tuples."""
    return tuple((name, hashable(value)) for name, value in sorted(given.items()))


def hashable(value: Any) -> Any:
    """A list as a tuple; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


Tried = TypeVar("Tried")


def finite(tried: Mapping[Tried, float | None]) -> dict[Tried, float]:
    """What has come out, with its score."""
    return {what: score for what, score in tried.items() if score is not None and math.isfinite(score)}


def best(tried: Mapping[Point, float | None]) -> Point | None:
    """The point with the highest score, of equal ones that with the smallest rate; None where all have failed."""
    return next(iter(ranked(tried)), None)


def ranked(tried: Mapping[Point, float | None]) -> list[Point]:
    """The points that have come out, the best first."""
    scores = finite(tried)
    return sorted(scores, key=lambda point: (-scores[point], point.rate, repr(point.options)))
