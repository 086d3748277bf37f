"""Words: the tokens of a text that comes as a list of words, and the word that each token belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from graftune.errors import GraftuneError
from graftune.templates.tokens import text_offsets


def words_ids(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """The tokens of the words with spaces between them, and the number of the word of each token.

    They are those of the joined text, so that no tokenizer glues words (byte-level ones put the space into the token).
    A word may have no token at all, such as a zero-width space; a token of a space alone belongs to no word. Words that
    spell a special token stay text. Raises GraftuneError for a tokenizer that does not tell where its tokens stand.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise GraftuneError(
            "tagging needs to know which pieces belong to which word",
            received=f"{type(tokenizer).__name__}, a tokenizer that does not tell",
            expected="a fast tokenizer (tokenizer.json)",
            do="save the base with its fast tokenizer",
        )
    text = " ".join(words)
    ids, offsets = text_offsets(tokenizer, text)
    starts = list(accumulate((len(word) + 1 for word in words[:-1]), initial=0))
    owners: list[int | None] = [None] * len(text)
    for number, (start, word) in enumerate(zip(starts, words, strict=True)):
        owners[start : start + len(word)] = [number] * len(word)
    # A token may begin with the space before its word.
    numbers = [next((n for n in owners[a:b] if n is not None), None) for a, b in offsets]
    return ids, numbers
