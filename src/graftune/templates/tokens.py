"""Tokens of text: what a tokenizer adds around it, what joins two texts, and data that spells a special token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from graftune.errors import GraftuneError

T = TypeVar("T")

_KNOWN: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def once(tokenizer: Any, name: str, ask: Callable[[], T]) -> T:
    """What is asked of a tokenizer once, as long as it has the same tokens."""
    key = name, len(tokenizer)
    found = _KNOWN.setdefault(tokenizer, {})
    if key not in found:
        found[key] = ask()
    answer: T = found[key]
    return answer


def tokens(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without special tokens around it; what spells a special token becomes it."""
    # Lengths are the template's concern; the tokenizer's own warning would only repeat or mislead.
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text of the data: what spells a special token stays text, and never becomes the control token."""
    if not text or not spells_special(tokenizer, text):
        return tokens(tokenizer, text)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return [piece for token in ids for piece in spelled_out(tokenizer, token)]


def text_offsets(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """As `text_ids` of a fast tokenizer, and the characters (start, end) of each id."""
    told = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for token, (start, end) in zip(told["input_ids"], told["offset_mapping"], strict=True):
        pieces = spelled_out(tokenizer, token)
        ids += pieces
        offsets += [(start, end)] if len(pieces) == 1 else [(start, end)] * len(pieces)
    return ids, offsets


def spelled_out(tokenizer: Any, token: int) -> list[int]:
    """The token itself, or of a control token the ones of its letters.

    A unigram vocabulary holds control tokens among its pieces, so that its model finds them in any text.
    """
    if token not in once(tokenizer, "controls", lambda: set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}):
        return [token]
    found: list[int] = []
    for letter in str(tokenizer.convert_ids_to_tokens(token)):
        alone = tokenizer.convert_tokens_to_ids(letter)
        encoded = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in letter.encode()]
        unknown = (None, tokenizer.unk_token_id)
        found += [alone] if alone not in unknown or any(byte in unknown for byte in encoded) else encoded
    return [piece for piece in found if piece is not None]


def spells_special(tokenizer: Any, text: str) -> bool:
    """Whether some part of the text would become a special token."""
    return any(special in text for special in once(tokenizer, "specials", lambda: _specials(tokenizer)))


def _specials(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple({*tokenizer.all_special_tokens, *(token.content for token in added if token.special)} - {""})


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text, such as ([CLS], [SEP]).

    Raises GraftuneError for a tokenizer that changes the text itself when it adds them.
    """
    return once(tokenizer, "around", lambda: _around(tokenizer))


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    whole, plain = list(tokenizer("a").input_ids), tokens(tokenizer, "a")
    start = _place(whole, plain, 0)
    return whole[:start], whole[start + len(plain) :]


def _place(whole: list[int], plain: list[int], least: int) -> int:
    for start in range(least, len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return start
    raise GraftuneError(
        "cannot tell the tokenizer's special tokens from the text",
        received=f"{whole} with and {plain} without special tokens",
        expected="the same ids for the text in both",
        do="use the tokenizer that belongs to the base",
    )


class PairForm(NamedTuple):
    """How a tokenizer joins two texts: the ids before, between and after them, and the type of each part.

    ``between`` is empty where the tokenizer has no form for pairs; the types are None where bases are not told.
    """

    opening: list[int]
    between: list[int]
    closing: list[int]
    types: tuple[int, list[int], int] | None

    def type_ids(self, split: int, length: int) -> list[int] | None:
        """The type of each of ``length`` ids whose part between the texts starts at ``split``."""
        if self.types is None:
            return None
        first, between, second = self.types
        return [first] * split + between + [second] * (length - split - len(between))


def pair_form(tokenizer: Any) -> PairForm:
    """The form of two texts, as `tokenizer(first, second)` has it."""
    return once(tokenizer, "pair", lambda: _pair_form(tokenizer))


def _pair_form(tokenizer: Any) -> PairForm:
    told = tokenizer("a", "b")
    whole = list(told["input_ids"])
    first, second = tokens(tokenizer, "a"), tokens(tokenizer, "b")
    start = _place(whole, first, 0)
    middle = start + len(first)
    after = _place(whole, second, middle)
    types = told.get("token_type_ids") if "token_type_ids" in tokenizer.model_input_names else None
    return PairForm(
        whole[:start],
        whole[middle:after],
        whole[after + len(second) :],
        None if types is None else (types[start], list(types[middle:after]), types[after]),
    )
