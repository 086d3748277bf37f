"""Conversations as examples: what is asked, and what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graftune.datasets.rows import Row
from graftune.templates.messages import Message, answers, question, role_of, text_of


def examples(given: Any, wanted: Any) -> list[tuple[Any, Any]]:
    """An instruction and its answer, or a conversation up to its last answer, and that answer.

    Both may be texts or messages, of which those that are wanted are learned; a conversation in one column is given
    and wanted.
    """
    asked = ({"role": "user", "content": given},) if isinstance(given, str) else tuple(given)
    if wanted is None:
        return [(asked, None)]
    if isinstance(wanted, str):
        return [(asked, {"role": "assistant", "content": wanted})]
    before = tuple({**message, "weight": 0} if role_of(message) == "assistant" else message for message in asked)
    whole = asked if wanted == given else (*before, *wanted)
    places = answers(whole)
    return [(whole[: places[-1]], whole[places[-1]]) if places else (whole, None)]


def last_question(messages: Sequence[Message]) -> str:
    """The text of the user's last message."""
    place = question(messages)
    return "" if place is None else text_of(messages[place])


def is_context(row: Row, name: str) -> bool:
    """Whether a column has text that is not the instruction itself."""
    text = row.columns.get(name, "").strip()
    return bool(text) and text != last_question(row.input).strip()
