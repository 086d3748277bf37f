"""Windows: a text that a base cannot read at once is read in overlapping pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graftune.datasets.rows import Row
from graftune.tasks.features import PromptEncoder, TooLong


def room_for(row: Row, column: str, encoder: PromptEncoder, stride: int) -> int | None:
    """How many tokens of a column fit beside all the rest of the template; None without a limit.

    Raises TooLong where these are not more than `stride`, so that windows would not move on.
    """
    if encoder.max_length is None:
        return None
    rest = replace(encoder, max_length=None).fit(row, values={column: []})
    room = encoder.max_length - len(rest.ids)
    if room <= stride:
        raise TooLong(
            f"line {row.line}: there is no room for windows over the text",
            received=f"{room} tokens of the text at a time, a stride of {stride}",
            expected="windows longer than the stride",
            do="raise the maximum length, lower the stride, shorten the rest of the template, or delete the row",
        )
    return room


def windows(tokens: int, room: int | None, stride: int) -> Iterator[range]:
    """Ranges of at most `room` tokens that overlap by `stride` and together cover all; at least one range."""
    first = 0
    while True:
        last = tokens if room is None else min(tokens, first + room)
        yield range(first, last)
        if last >= tokens:
            return
        first = last - stride
