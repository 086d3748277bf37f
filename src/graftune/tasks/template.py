"""Templates: where the input, fixed words and virtual tokens stand in what the model reads.

`"Table: {input} {P:3}Text:"` is the literal words `Table: `, the input, three virtual tokens and
the words `Text:`. `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from graftune.errors import GraftuneError, unknown

_PIECES = re.compile(r"\{\{|\}\}|\{(?P<slot>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")
_SLOTS = ("input", "P:<count>")


class Encoded(NamedTuple):
    """Token ids, and whether tokens of the input had to be left out."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Words:
    """Text that is tokenised as it stands."""

    text: str


@dataclass(frozen=True)
class Input:
    """The place of a row's input."""


@dataclass(frozen=True)
class Virtual:
    """A run of virtual tokens."""

    count: int


Segment = Words | Input | Virtual


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Raises GraftuneError: no or several `{input}`, an unknown slot, a count below 1, a stray brace.
    """

    text: str = "{input}"
    segments: tuple[Segment, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = _joined(_parse(self.text))
        inputs = sum(isinstance(segment, Input) for segment in segments)
        if inputs != 1:
            raise GraftuneError(
                f"the template has {inputs or 'no'} {{input}} slot{'s' if inputs > 1 else ''}",
                received=repr(self.text),
                expected="exactly one {input}",
                do='write for example "{input}"; plain braces are written {{ and }}',
            )
        object.__setattr__(self, "segments", tuple(segments))

    @staticmethod
    def literal(text: str) -> str:
        """Template text that stands for exactly `text`, whatever braces it has."""
        return text.replace("{", "{{").replace("}", "}}")

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens the template places."""
        return _count(self.segments)

    def encode(
        self,
        tokenizer: Any,
        input: str,
        first_virtual_id: int,
        max_length: int | None = None,
        *,
        suffix: bool = True,
    ) -> Encoded:
        """The ids of the filled template, between the special tokens the tokenizer itself adds.

        Virtual tokens are `first_virtual_id`, `+ 1`, ... from left to right. Text without a virtual
        token inside is tokenised as one string. Where that exceeds `max_length`, tokens are left
        out at the end of the input only. `suffix=False` drops the special tokens that follow the text.

        Raises GraftuneError when `max_length` leaves no token for the input.
        """
        opening, closing = special_tokens(tokenizer)
        if not suffix:
            closing = []
        filled = [Words(input) if isinstance(segment, Input) else segment for segment in self.segments]
        ids = opening + _ids(tokenizer, _joined(filled), first_virtual_id) + closing
        if max_length is None or len(ids) <= max_length:
            return Encoded(ids, False)

        # Too long: only separately tokenised input has tokens of its own that can be left out.
        place = self.segments.index(Input())
        left, right = self.segments[:place], self.segments[place + 1 :]
        before = opening + _ids(tokenizer, left, first_virtual_id)
        after = _ids(tokenizer, right, first_virtual_id + _count(left)) + closing
        words = tokens(tokenizer, input)
        room = max_length - len(before) - len(after)
        if room < 1:
            raise GraftuneError(
                "the template leaves no room for the input",
                received=f"a limit of {max_length} tokens; {len(before) + len(after)} others stand in it",
                expected="at least one token of the input within the limit",
                do="raise the maximum length, or shorten the template",
            )
        return Encoded(before + words[:room] + after, room < len(words))


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text, such as ([CLS], [SEP]).

    Raises GraftuneError for a tokenizer that changes the text itself when it adds them.
    """
    whole, plain = list(tokenizer("a").input_ids), tokens(tokenizer, "a")
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise GraftuneError(
        "cannot tell the tokenizer's special tokens from the text",
        received=f"{whole} with and {plain} without special tokens",
        expected="the same ids for the text in both",
        do="use the tokenizer that belongs to the base",
    )


def tokens(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without special tokens."""
    # Lengths are this module's concern; the tokenizer's own warning would only repeat or mislead.
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []


def _parse(text: str) -> list[Segment]:
    segments: list[Segment] = []
    for match in _PIECES.finditer(text):
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
        elif slot == "input":
            segments.append(Input())
        else:
            segments.append(_virtual(slot))
    return segments


def _virtual(slot: str) -> Virtual:
    name, _, count = slot.partition(":")
    if name.strip().upper() != "P":
        raise unknown("template slot", slot, _SLOTS)
    if name != "P" or not re.fullmatch("[0-9]+", count) or int(count) < 1:
        raise GraftuneError(
            "virtual tokens are written {P:<count>}",
            received=f"{{{slot}}}",
            expected="a capital P, a colon and a count of 1 or more",
            do="write for example {P:3}",
        )
    return Virtual(int(count))


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same segments with neighbouring words made one."""
    joined: list[Segment] = []
    for words, group in groupby(segments, key=lambda segment: isinstance(segment, Words)):
        if words:
            joined.append(Words("".join(segment.text for segment in group if isinstance(segment, Words))))
        else:
            joined.extend(group)
    return joined


def _count(segments: Iterable[Segment]) -> int:
    return sum(segment.count for segment in segments if isinstance(segment, Virtual))


def _ids(tokenizer: Any, segments: Iterable[Segment], virtual: int) -> list[int]:
    """The ids of words and virtual tokens; `virtual` is the id of the first virtual one."""
    ids: list[int] = []
    for segment in segments:
        if isinstance(segment, Words):
            ids += tokens(tokenizer, segment.text)
        elif isinstance(segment, Virtual):
            ids += range(virtual, virtual + segment.count)
            virtual += segment.count
    return ids
