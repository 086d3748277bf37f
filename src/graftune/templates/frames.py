"""Frames: the special tokens that a tokenizer puts around a text, around and between two, and around a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from graftune.errors import GraftuneError
from graftune.templates.tokens import reader, untouched

Kind = Literal["text", "pair", "target"]


@dataclass(frozen=True)
class Frame:
    """`opening` a `middle` b `closing`, or `opening` a `closing`: ids, and token types where the tokenizer has them.

    `types` are those of opening, a, middle, b and closing.
    """

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    closing: tuple[int, ...]
    types: tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]] | None


def special_tokens(tokenizer: Any, *, target: bool = False) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text, such as ([CLS], [SEP]); `target`: a decoder's text.

    Raises GraftuneError for a tokenizer that changes the text itself when it adds them.
    """
    found = frame(tokenizer, "target" if target else "text")
    return list(found.opening), list(found.closing)


def joins_pairs(tokenizer: Any) -> bool:
    """Whether the tokenizer has a form of its own for two texts: one where a token ends the first."""
    ends = {getattr(tokenizer, f"{name}_token_id", None) for name in ("sep", "eos")} - {None}
    return not ends.isdisjoint(frame(tokenizer, "pair").middle)


def frame(tokenizer: Any, kind: Kind = "text") -> Frame:
    """The frame of one text, of a pair, or of a target: found once, and again when the tokenizer's own changes.

    Raises GraftuneError for a tokenizer that changes the texts themselves when it adds special tokens.
    """
    own = _FRAMES.setdefault(tokenizer, {})
    key = (kind, _state(tokenizer), getattr(tokenizer, "tgt_lang", None) if kind == "target" else None)
    if key not in own:
        own[key] = _frame(tokenizer, kind)
    return own[key]


_FRAMES: WeakKeyDictionary[Any, dict[Any, Frame]] = WeakKeyDictionary()


def _state(tokenizer: Any) -> Any:
    """What decides the special tokens: the backend's last step, or what a text without tokens becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return repr(backend.post_processor)
    built = getattr(tokenizer, "build_inputs_with_special_tokens", None)
    return tuple(built([])) if built is not None else None


def _frame(tokenizer: Any, kind: Kind) -> Frame:
    texts = ("a", "b") if kind == "pair" else ("a",)
    typed = kind != "target" and "token_type_ids" in getattr(tokenizer, "model_input_names", ())
    with untouched(tokenizer):
        sides = reader(tokenizer).ids(texts, target=kind == "target")
        if kind == "target":
            found = tokenizer(text_target=texts[0])
        else:
            found = tokenizer(*texts, **({"return_token_type_ids": True} if typed else {}))
    ids = list(found.input_ids)
    places = _places(ids, sides)
    (start, end), (second, last) = places[0], places[-1]
    middle = slice(end, max(end, second))
    types = None
    if typed:
        of = list(found["token_type_ids"])
        types = (tuple(of[:start]), of[start], tuple(of[middle]), of[second], tuple(of[last:]))
    return Frame(tuple(ids[:start]), tuple(ids[middle]), tuple(ids[last:]), types)


def _places(ids: list[int], texts: list[list[int]]) -> list[tuple[int, int]]:
    """Where the texts stand in the ids, one after another."""
    places: list[tuple[int, int]] = []
    at = 0
    for text in texts:
        while ids[at : at + len(text)] != text and at < len(ids):
            at += 1
        if not text or at == len(ids):
            raise GraftuneError(
                "cannot tell the tokenizer's special tokens from the text",
                received=f"{ids} with and {text} without special tokens",
                expected="the same ids for the text in both",
                do="use the tokenizer that belongs to the base",
            )
        places.append((at, at := at + len(text)))
    return places
