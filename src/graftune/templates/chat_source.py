"""The source of a chat template: whether it does more to texts than to write and to trim them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

#: A template's tokens: line, kind and text.
Lexed = Sequence[tuple[int, str, str]]

_FILTERS = """trim tojson string length count default d first last list items selectattr rejectattr int safe"""
_CALLS = """strip lstrip rstrip startswith endswith split items keys values get append"""
#: What makes no new text of the texts that it is given.
_KEEPING = {"|": set(_FILTERS.split()), ".": set(_CALLS.split())}


def makes_texts(lexed: Lexed) -> bool:
    """Whether it may make other texts of those that it is given: by a filter, a method or a slice."""
    tokens = [("name", ""), *((kind, text) for _, kind, text in lexed if kind in ("name", "operator"))]
    subscripted: list[str] = []  # what stands before each bracket that is open; nothing before one of a list or dict
    for place, ((_, before), (kind, text)) in enumerate(pairwise(tokens), 1):
        called = before == "|" or tokens[place + 1 : place + 2] == [("operator", "(")]
        if kind == "name" and before in _KEEPING and called and text not in _KEEPING[before]:
            return True
        if text in ("[", "{", "("):
            is_subscript = text == "[" and (tokens[place - 1][0] == "name" or before in ("]", ")"))
            subscripted.append(before if is_subscript else "")
        elif text in ("]", "}", ")") and subscripted:
            subscripted.pop()
        elif text == ":" and subscripted and subscripted[-1] and "messages" not in subscripted[-1]:
            return True
    return False
