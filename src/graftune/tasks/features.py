"""Features: what a row becomes before it is batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftune.errors import GraftuneError
from graftune.tasks.data import Row
from graftune.tasks.template import Encoded, Template, Value


@dataclass(frozen=True)
class Features:
    """One encoded row: its ids, what it is trained on (a label an id, -100 = none; or what the task has instead).

    `truncated` says whether input was cut.
    """

    ids: list[int]
    labels: Any
    truncated: bool = False

    @property
    def length(self) -> int:
        """How many positions of the base it takes."""
        return len(self.ids)


def fit(
    template: Template,
    row: Row,
    tokenizer: Any,
    first_virtual_id: int,
    max_length: int | None,
    *,
    reserved: int = 0,
    suffix: bool = True,
    values: Mapping[str, Value] | None = None,
) -> Encoded:
    """The template filled with the row's columns, or `values` over them, within `max_length` less `reserved` tokens.

    Raises GraftuneError, naming the row's line, when even a single token of a column does not fit.
    """
    limit = None if max_length is None else max_length - reserved
    try:
        return template.encode(tokenizer, {**row.texts, **(values or {})}, first_virtual_id, limit, suffix=suffix)
    except GraftuneError as error:
        if limit is None or "no room" not in str(error):  # then length is not the reason
            raise
        raise GraftuneError(
            f"line {row.line}: the sequence is too long",
            received=f"{reserved} tokens after the template, and a template that fits no input in the rest",
            expected=f"at most {max_length} tokens, at least one of them the input's",
            do="raise the maximum length, shorten the template, or delete the row",
        ) from error


def truncation(parts: Sequence[Sequence[Features | Encoded]]) -> str:
    """The note that says how many inputs were cut."""
    count = sum(any(part.truncated for part in own) for own in parts)
    return f"{count} of {len(parts)} inputs cut to fit the maximum length"
