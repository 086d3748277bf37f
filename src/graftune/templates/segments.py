"""Segments: what a template is made of, and how its text is parsed into them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graftune.errors import GraftuneError, unknown

PIECES = re.compile(r"\{\{|\}\}|\{(?P<slot>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")
MOST = 2**16  # virtual tokens in one place
SLOTS = ("input", "P:<count>", "mask", "sep")


@dataclass(frozen=True)
class Words:
    """Text that is tokenised as it stands."""

    text: str


@dataclass(frozen=True)
class Column:
    """The place of a column."""

    name: str


@dataclass(frozen=True)
class Virtual:
    """A run of virtual tokens."""

    count: int


@dataclass(frozen=True)
class Mask:
    """The place of the word to be found."""


@dataclass(frozen=True)
class Separator:
    """Where the first text of a pair ends and the second begins."""


@dataclass(frozen=True)
class Ids:
    """Tokens of a column."""

    ids: Sequence[int]
    name: str


Segment = Words | Column | Virtual | Mask | Separator | Ids


def parse(text: str) -> list[Segment]:
    """The segments of a template's text, with neighbouring words made one.

    Raises GraftuneError for an unknown slot, a count below 1, or a stray brace.
    """
    segments: list[Segment] = []
    for match in PIECES.finditer(text):
        piece, slot = match.group(), match["slot"]
        if match["stray"]:
            raise GraftuneError(
                f"the template has a single {piece!r} at character {match.start() + 1}",
                received=repr(text),
                expected="a slot such as {input}, or a doubled brace",
                do=f"write {piece * 2!r} for a plain {piece!r}",
            )
        if slot is None:
            segments.append(Words(piece[0] if piece in ("{{", "}}") else piece))
        elif slot in ("mask", "sep"):
            segments.append(Mask() if slot == "mask" else Separator())
        elif re.fullmatch(r"\w[\w .-]*", slot) and slot.upper() != "P":
            segments.append(Column(slot))
        else:
            segments.append(_virtual(slot))
    return joined(segments)


def _virtual(slot: str) -> Virtual:
    name, _, count = slot.partition(":")
    if name.strip().upper() != "P":
        raise unknown("template slot", slot, SLOTS)
    if name != "P" or not re.fullmatch("[0-9]{1,6}", count) or not 1 <= int(count) <= MOST:
        raise GraftuneError(
            "virtual tokens are written {P:<count>}",
            received=f"{{{slot}}}",
            expected=f"a capital P, a colon and a count from 1 to {MOST}",
            do="write for example {P:3}",
        )
    return Virtual(int(count))


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same segments with neighbouring words made one."""
    found: list[Segment] = []
    for segment in segments:
        if isinstance(segment, Words) and found and isinstance(found[-1], Words):
            found[-1] = Words(found[-1].text + segment.text)
        else:
            found.append(segment)
    return found
