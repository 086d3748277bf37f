"""Answers: pieces of a text that answer a question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from graftune.datasets.values.scalars import InvalidValue, is_list, number, parsed, short, text

#: What the text of an answer and the place of its first character are called.
TEXTS: Final = ("text", "answer", "answers", "answer_text", "target")
STARTS: Final = ("answer_start", "answer_starts", "start")
#: Columns of answers, and those with their places beside them.
PLACES: Final[dict[str, tuple[str, ...]]] = dict.fromkeys(TEXTS[1:], STARTS)


class Answer(NamedTuple):
    """An answer, and the number of its first character in the text, where the data tell it."""

    text: str
    start: int | None


def located_answers(value: Any, folder: Path) -> tuple[Answer, ...]:
    """The answers of a question with their places; none for a question that has no answer.

    SQuAD's {"text": [...], "answer_start": [...]}, a list of {"text": ..., "answer_start": ...}, a text or a list of
    texts, which may stand in one column and their places in another. An empty list is a question without an answer, an
    empty text is a mistake.
    """
    value = _unwrapped(value)
    if isinstance(value, Mapping):
        value = _pairs(value)
    elif not is_list(value):
        value = [value]
    return tuple(dict.fromkeys(_answer(one, folder) for one in value))


def _unwrapped(value: Any) -> Any:
    """A list or an object that CSV holds as JSON; any other text is an answer, brackets or not.

    Raises InvalidValue for an object of SQuAD that is broken: no answer looks like that.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = parsed(value)
    except InvalidValue:
        if "answer_start" in value:
            raise
        return value
    return found if is_list(found) or isinstance(found, Mapping) else value


def _pairs(value: Mapping[str, Any]) -> list[Any]:
    named = next((name for name in TEXTS if name in value), "text")
    texts: Any = _unwrapped(value.get(named))
    starts: Any = _unwrapped(_place_in(value))
    if isinstance(texts, Mapping):  # a column of answers that have their places already
        texts, starts = texts.get("text"), _place_in(texts)
    if texts is None:
        raise InvalidValue('has no "text"')
    if not is_list(texts):
        texts = [texts]
    if any(isinstance(one, Mapping) for one in texts):
        return list(texts)
    if not is_list(starts):
        starts = [None] * len(texts) if starts is None else [starts]
    if len(starts) != len(texts):
        raise InvalidValue(f'has {len(texts)} texts and {len(starts)} numbers in "answer_start"')
    return [{"text": one, "answer_start": start} for one, start in zip(texts, starts, strict=True)]


def _answer(value: Any, folder: Path) -> Answer:
    if not isinstance(value, Mapping):
        return Answer(text(value, folder), None)
    if "text" not in value:
        raise InvalidValue('has an answer without "text"')
    return Answer(text(value["text"], folder), _start(_place_in(value), folder))


def _place_in(value: Mapping[str, Any]) -> Any:
    return next((value[name] for name in STARTS if value.get(name) is not None), None)


def _start(value: Any, folder: Path) -> int | None:
    """Where an answer starts; None and -1 stand for an unknown place."""
    if value is None:
        return None
    place = number(value, folder)
    if not place.is_integer() or place < -1:
        raise InvalidValue(f'has {short(value)} in "answer_start", not the number of a character')
    return None if place == -1 else int(place)
