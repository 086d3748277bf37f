"""Templates: where columns, fixed words, virtual tokens and the hidden word stand in what the model reads.

`"Review: {text} {P:3}It was {mask}."` is the literal words `Review: `, the column `text`, three virtual tokens, the
words `It was ` and the place of the word to be found. `{input}` is the task's input column, whatever its name.
`"{premise}{sep}{hypothesis}"` is a pair of texts, joined as the tokenizer joins pairs, or by a new line where it has no
form for them. `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftune.errors import GraftuneError, unknown
from graftune.templates.filling import Encoded, Filling, NoRoom, Value, shared
from graftune.templates.frames import special_tokens
from graftune.templates.segments import PIECES, SLOTS, Column, Mask, Segment, Separator, Virtual, Words, parse
from graftune.templates.tokens import text_ids, tokens

__all__ = [
    "Encoded",
    "NoRoom",
    "Template",
    "Value",
    "composed",
    "shared",
    "special_tokens",
    "text_ids",
    "tokens",
]


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Raises GraftuneError: no column, one twice, two masks or separators, a count below 1, a stray brace.
    """

    text: str = "{input}"
    segments: tuple[Segment, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = parse(self.text)
        names = [s.name for s in segments if isinstance(s, Column)]
        slots = [
            *names,
            *("mask" for s in segments if isinstance(s, Mask)),
            *("sep" for s in segments if s == Separator()),
        ]
        twice = [f"{{{name}}}" for name in dict.fromkeys(slots) if slots.count(name) > 1]
        if not names or twice:
            raise GraftuneError(
                f"the template has {twice[0]} more than once" if twice else "the template has no {input} slot",
                received=repr(self.text),
                expected="{input} or other columns, each once, and at most one {mask} and one {sep}",
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

    @property
    def has_separator(self) -> bool:
        """Whether it joins two texts as a pair."""
        return Separator() in self.segments

    def until_mask(self) -> Template:
        """What stands before `{mask}`, for a model that writes from left to right: all it can see of the template.

        Raises GraftuneError where a column or virtual tokens stand behind it.
        """
        if not self.has_mask:
            return self
        at = self.segments.index(Mask())
        if any(isinstance(s, Column | Virtual | Separator) for s in self.segments[at + 1 :]):
            raise GraftuneError(
                "a model that writes from left to right cannot see what stands behind {mask}",
                received=repr(self.text),
                expected="columns and virtual tokens before {mask}",
                do="move {mask} to the end, or take a masked language model as the base",
            )
        return Template(self.text[: re.search(r"(?<!\{)\{mask\}", self.text).start()].rstrip())  # type: ignore[union-attr]

    def written(self, values: Mapping[str, str], mask: str) -> str:
        """The template as plain text: words, values, ``mask`` for the hidden word, a new line for `{sep}`."""
        text = ""
        for segment in self.segments:
            if isinstance(segment, Words):
                text += segment.text
            elif isinstance(segment, Column):
                text += values[segment.name]
            elif isinstance(segment, Mask):
                text += mask
            elif isinstance(segment, Separator):
                text += "\n"
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
        `+ 1`, ... from left to right. Text without a virtual token inside is tokenised as one string; special tokens
        that the template's words spell become such, those that a column's text spells do not. Two texts with `{sep}`
        between them are joined as the tokenizer joins a pair. Where all that exceeds `max_length`, tokens are left out
        at the end of the longest column, never of words or virtual tokens.
        `suffix=False` drops the special tokens that follow the text.

        Raises GraftuneError for a column that `values` lacks, for a `{mask}` that the tokenizer has no token for,
        and when `max_length` leaves no token for a column.
        """
        return self.encode_many(tokenizer, [values], first_virtual_id, max_length, suffix=suffix)[0]

    def encode_many(
        self,
        tokenizer: Any,
        rows: Sequence[Value | Mapping[str, Value]],
        first_virtual_id: int,
        max_length: int | None = None,
        *,
        suffix: bool = True,
    ) -> list[Encoded]:
        """As `encode` for each row; faster, since the tokenizer reads the texts of all rows at once."""
        given = [values if isinstance(values, Mapping) else {"input": values} for values in rows]
        for values in given:
            for name in self.columns:
                if name not in values:
                    raise unknown("template column", name, {*values, *SLOTS[1:]})
        return Filling(self.segments, tokenizer, first_virtual_id, max_length, suffix).encoded(given)


def composed(inner: str, outer: str) -> str:
    """A method's template with a task's: the method's stands for `{input}` in the task's.

    A method's template that itself says where columns and `{mask}` stand is taken alone; a task's that names only
    other columns stands for `{input}` in the method's.
    """
    method, task = Template(inner), Template(outer)
    if method.has_mask or method.columns != ("input",):
        return inner
    around, within = (outer, inner) if "input" in task.columns else (inner, outer)
    return PIECES.sub(lambda match: within if match["slot"] == "input" else match.group(), around)
