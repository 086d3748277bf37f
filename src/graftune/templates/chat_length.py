"""Lengths of conversations: what is left out of a prompt that is too long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from graftune.templates.messages import Message, question, text_of, without_oldest_turn
from graftune.templates.template import NoRoom

#: How many tokens the prompt of a conversation has.
Size = Callable[[Sequence[Message]], int]


def fitted(messages: Sequence[Message], limit: int | None, size: Size, tokenizer: Any) -> tuple[list[Message], bool]:
    """The messages of a prompt of at most `limit` tokens, and whether anything had to be left out.

    First the oldest turns are, then the end of the user's last message. Raises NoRoom where none of its tokens fits.
    """
    if limit is None or size(messages) <= limit:
        return list(messages), False
    shortened = [list(messages)]
    while (shorter := without_oldest_turn(shortened[-1])) is not None:
        shortened.append(shorter)
    shortest_first = shortened[::-1]
    count = bisect_right(shortest_first, limit, key=size)
    return (shortest_first[count - 1] if count else _cut(shortest_first[0], limit, size, tokenizer)), True


def beside(messages: Sequence[Message], answer: int, max_length: int, size: Size, tokenizer: Any) -> list[Message]:
    """The messages of a prompt that stands before an answer of so many tokens.

    Where the whole answer leaves no room for them, it has to be cut: then the prompt may take half of all.
    """
    for limit in (max_length - answer, max_length // 2):
        try:
            return fitted(messages, limit, size, tokenizer)[0]
        except NoRoom:
            continue
    return fitted(messages, max_length - 1, size, tokenizer)[0]


def _cut(messages: Sequence[Message], limit: int, size: Size, tokenizer: Any) -> list[Message]:
    """With the end of the user's last message cut, after one of its tokens."""
    place = question(messages)
    text = "" if place is None else text_of(messages[place])

    def shorter(end: int) -> list[Message]:
        return [{**m, "content": text[:end]} if i == place else m for i, m in enumerate(messages)]

    ends = _token_ends(text, tokenizer)
    count = bisect_right(ends, limit, key=lambda end: size(shorter(end)))
    while count and size(shorter(ends[count - 1])) > limit:
        count -= 1  # sizes do not grow quite evenly where a cut changes how the rest is tokenised
    if not count:
        raise NoRoom(
            "the conversation leaves no room for the user's last message",
            received=f"a limit of {limit} tokens; all others together take as many",
            expected="at least one token of the user's last message within the limit",
            do="raise the maximum length, or shorten the system message",
        )
    return shorter(ends[count - 1])


def _token_ends(text: str, tokenizer: Any) -> list[int]:
    """After which letters of a text a token ends."""
    if not tokenizer.is_fast:
        return list(range(1, len(text) + 1))
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return sorted({end for _, end in found["offset_mapping"] if end})
