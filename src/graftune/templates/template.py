"""Templates: where columns, fixed words, virtual tokens and the hidden word stand in what the model reads.

`"Review: {text} {P:3}It was {mask}."` is the literal words `Review: `, the column `text`, three virtual tokens, the
words `It was ` and the place of the word to be found. `{input}` is the task's input column, whatever its name; `{sep}`
joins what is on both sides of it as the tokenizer joins two texts, or by a new line where it has no form for that.
`{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graftune.errors import GraftuneError, unknown
from graftune.templates.segments import (
    SLOTS,
    Column,
    Ids,
    Mask,
    Segment,
    Separator,
    Virtual,
    Words,
    joined,
    parse,
)
from graftune.templates.tokens import pair_form, special_tokens, spells_special, text_ids, tokens

Value = str | Sequence[int]


class NoRoom(GraftuneError):
    """A template whose words and virtual tokens alone exceed the maximum length."""


class Encoded(NamedTuple):
    """Token ids, and whether tokens of a column had to be left out.

    `places` has the first position and the number of kept tokens of each column that was given as ids. `type_ids` say
    which of two joined texts each id belongs to, 0 or 1, for bases that are told.
    """

    ids: list[int]
    truncated: bool
    places: dict[str, tuple[int, int]]
    type_ids: list[int] | None = None


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Raises GraftuneError: no column, one twice, two masks, a count below 1, a stray brace.
    """

    text: str = "{input}"
    segments: tuple[Segment, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = parse(self.text)
        names = [s.name for s in segments if isinstance(s, Column)]
        masks = sum(isinstance(s, Mask) for s in segments)
        separators = sum(isinstance(s, Separator) for s in segments)
        twice = [f"{{{name}}}" for name in dict.fromkeys(names) if names.count(name) > 1]
        twice += ["{mask}"] * (masks > 1) + ["{sep}"] * (separators > 1)
        if not names or twice:
            raise GraftuneError(
                f"the template has {twice[0]} more than once" if twice else "the template has no {input} slot",
                received=repr(self.text),
                expected="{input} or other columns, each once, and at most one {mask} and {sep}",
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
        return sum(s.count for s in self.segments if isinstance(s, Virtual))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, from left to right."""
        return tuple(s.name for s in self.segments if isinstance(s, Column))

    @property
    def has_mask(self) -> bool:
        """Whether it has a place for a word to be found."""
        return Mask() in self.segments

    def until_mask(self) -> Template:
        """What stands before `{mask}`, for a model that writes from left to right: all it can see of the template.

        Raises GraftuneError where a column or virtual tokens stand behind it.
        """
        if not self.has_mask:
            return self
        at = self.segments.index(Mask())
        if any(isinstance(s, Column | Virtual) for s in self.segments[at + 1 :]):
            raise GraftuneError(
                "a model that writes from left to right cannot see what stands behind {mask}",
                received=repr(self.text),
                expected="columns and virtual tokens before {mask}",
                do="move {mask} to the end, or take a masked language model as the base",
            )
        return Template(self.text[: re.search(r"(?<!\{)\{mask\}", self.text).start()].rstrip())  # type: ignore[union-attr]

    def written(self, values: Mapping[str, str], mask: str) -> str:
        """The template as plain text: its words, the columns' values, and ``mask`` for the hidden word."""
        text = ""
        for segment in self.segments:
            if isinstance(segment, Words):
                text += segment.text
            elif isinstance(segment, Column):
                text += values[segment.name]
            elif isinstance(segment, Mask):
                text += mask
        return text

    def encode(
        self,
        tokenizer: Any,
        values: Value | Mapping[str, Value],
        first_virtual_id: int,
        max_length: int | None = None,
        *,
        suffix: bool = True,
    ) -> Encoded:
        """The ids of the filled template, between the special tokens the tokenizer itself adds.

        `values` are the columns (one alone is `{input}`), as text or as ids. Virtual tokens are `first_virtual_id`,
        `+ 1`, ... from left to right. Text without a virtual token inside is tokenised as one string. Where that
        exceeds `max_length`, tokens are left out at the end of the longest column, never of words or virtual tokens.
        `suffix=False` drops the special tokens that follow the text.

        Raises GraftuneError for a column that `values` lacks, for a `{mask}` that the tokenizer has no token for,
        and when `max_length` leaves no token for a column.
        """
        given = values if isinstance(values, Mapping) else {"input": values}
        for name in self.columns:
            if name not in given:
                raise unknown("template column", name, {*given, *SLOTS[1:]})
        pair = pair_form(tokenizer) if Separator() in self.segments else None
        opening, closing = special_tokens(tokenizer) if pair is None else (pair.opening, pair.closing)
        closing = closing if suffix else []

        def finished(segments: Iterable[Segment], truncated: bool) -> Encoded:
            """The ids between the special tokens, and the types of both sides of a pair."""
            ids, places, split = _ids(tokenizer, segments, first_virtual_id, len(opening))
            whole = opening + ids + closing
            types = None if pair is None or split is None else pair.type_ids(split, len(whole))
            return Encoded(whole, truncated, places, types)

        filled = finished(joined(_filled(segment, given, tokenizer) for segment in self.segments), False)
        if max_length is None or len(filled.ids) <= max_length:
            return filled

        # Too long: only columns that are tokenised by themselves have tokens of their own that can be left out.
        apart = [_apart(segment, given, tokenizer) for segment in self.segments]
        fixed = joined(segment for segment in apart if not isinstance(segment, Ids))
        taken = len(opening) + len(_ids(tokenizer, fixed, first_virtual_id, 0)[0]) + len(closing)
        room = max_length - taken
        columns = [segment for segment in apart if isinstance(segment, Ids)]
        if room < len(columns):
            raise NoRoom(
                "the template leaves no room for the input",
                received=f"a limit of {max_length} tokens; {taken} others stand in it",
                expected="at least one token of the input within the limit",
                do="raise the maximum length, or shorten the template",
            )
        sizes = dict(zip((c.name for c in columns), shared(room, [len(c.ids) for c in columns]), strict=True))
        cut = [Ids(s.ids[: sizes[s.name]], s.name) if isinstance(s, Ids) else s for s in apart]
        return finished(joined(cut), any(sizes[c.name] < len(c.ids) for c in columns))


def shared(room: int, sizes: Sequence[int]) -> list[int]:
    """How many tokens of each column are kept: of the longest the most are left out, until all fit."""
    kept = list(sizes)
    order = sorted(range(len(kept)), key=lambda i: kept[i])
    for place, index in enumerate(order):
        kept[index] = min(kept[index], room // (len(order) - place))
        room -= kept[index]
    return kept


def _filled(segment: Segment, values: Mapping[str, Value], tokenizer: Any) -> Segment:
    """A segment with its column's value; the hidden word becomes the tokenizer's own token for one."""
    if isinstance(segment, Column):
        value = values[segment.name]
        if not isinstance(value, str):
            return Ids(value, segment.name)
        # Only data that spells a special token is tokenised apart from the words around it.
        spells = spells_special(tokenizer, value)
        return Ids(text_ids(tokenizer, value), segment.name) if spells else Words(value)
    if isinstance(segment, Mask):
        if getattr(tokenizer, "mask_token", None) is None:
            raise GraftuneError(
                "the tokenizer has no token for {mask}",
                received=type(tokenizer).__name__,
                expected="the tokenizer of a masked language model",
                do="leave {mask} out, or choose an encoder as the base",
            )
        return Words(tokenizer.mask_token)  # as text, so that the space before it is treated as the tokenizer does
    return segment


def _apart(segment: Segment, values: Mapping[str, Value], tokenizer: Any) -> Segment:
    """As `_filled`, with text of columns tokenised by itself."""
    if isinstance(segment, Column) and isinstance(text := values[segment.name], str):
        return Ids(text_ids(tokenizer, text), segment.name)
    return _filled(segment, values, tokenizer)


def _ids(
    tokenizer: Any, segments: Iterable[Segment], virtual: int, start: int
) -> tuple[list[int], dict[str, tuple[int, int]], int | None]:
    """Ids of words, virtual tokens (the first is `virtual`) and columns; where columns and the separator stand.

    Places are counted from `start`.
    """
    ids: list[int] = []
    split: int | None = None
    places: dict[str, tuple[int, int]] = {}
    for segment in segments:
        if isinstance(segment, Words):
            ids += tokens(tokenizer, segment.text)
        elif isinstance(segment, Ids):
            places[segment.name] = start + len(ids), len(segment.ids)
            ids += segment.ids
        elif isinstance(segment, Virtual):
            ids += range(virtual, virtual + segment.count)
            virtual += segment.count
        elif isinstance(segment, Separator):
            split = start + len(ids)
            ids += pair_form(tokenizer).between or tokens(tokenizer, "\n")
    return ids, places, split
