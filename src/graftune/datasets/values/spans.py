"""Answers: pieces of a text that answer a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graftune.datasets.values.scalars import InvalidValue, is_list, number, parsed, short, text


class Answer(NamedTuple):
    """An answer, and the number of its first character in the text, where the data tell it."""

    text: str
    start: int | None


def answers(value: Any, folder: Path) -> tuple[str, ...]:
    """One answer or several, as text, as a list, or as SQuAD has them: {"text": [...], "answer_start": [...]}."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = parsed(value)
    if isinstance(value, Mapping):
        value = value.get("text", ())
    if isinstance(value, str | int | float):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise InvalidValue("holds no answer")
    return tuple(dict.fromkeys(text(answer, folder) for answer in value))


def located_answers(value: Any, folder: Path) -> tuple[Answer, ...]:
    """The answers of a question with their places; none for a question that has no answer.

    SQuAD's {"text": [...], "answer_start": [...]}, a list of {"text": ..., "answer_start": ...}, a text or a list of
    texts. An empty list is a question without an answer, an empty text is a mistake.
    """
    if isinstance(value, str):
        value = _unwrapped(value)
    if isinstance(value, Mapping):
        value = _pairs(value)
    elif not is_list(value):
        value = [value]
    return tuple(dict.fromkeys(_answer(one, folder) for one in value))


def _unwrapped(value: str) -> Any:
    """A list or an object that CSV holds as JSON; any other text is an answer, brackets or not.

    Raises InvalidValue for an object of SQuAD that is broken: no answer looks like that.
    """
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = parsed(value)
    except InvalidValue:
        if "answer_start" in value:
            raise
        return value
    return found if is_list(found) or isinstance(found, Mapping) else value


def _pairs(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "text" not in value:
        raise InvalidValue('has no "text"')
    texts, starts = value["text"], value.get("answer_start")
    if not is_list(texts):
        texts, starts = [texts], [starts]
    if starts is None:
        starts = [None] * len(texts)
    if not is_list(starts) or len(starts) != len(texts):
        many = len(starts) if is_list(starts) else 1
        raise InvalidValue(f'has {len(texts)} texts and {many} numbers in "answer_start"')
    return [{"text": one, "answer_start": start} for one, start in zip(texts, starts, strict=True)]


def _answer(value: Any, folder: Path) -> Answer:
    if not isinstance(value, Mapping):
        return Answer(text(value, folder), None)
    if "text" not in value:
        raise InvalidValue('has an answer without "text"')
    return Answer(text(value["text"], folder), _start(value.get("answer_start"), folder))


def _start(value: Any, folder: Path) -> int | None:
    """Where an answer starts; None and -1 stand for an unknown place."""
    if value is None:
        return None
    place = number(value, folder)
    if not place.is_integer() or place < -1:
        raise InvalidValue(f'has {short(value)} in "answer_start", not the number of a character')
    return None if place == -1 else int(place)
