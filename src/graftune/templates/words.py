"""Words: which pieces of a sentence that is split into words belong to which word.

One rule for every tokenizer: the words are read as the sentence in which one space stands between any two, so that no
two are glued together. Scripts without spaces are no exception: where every Chinese character is a word, each has a
space before it, as a tokenizer that is loaded with `add_prefix_space=True` gives it, and BERT's see no difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

from graftune.errors import GraftuneError
from graftune.templates.tokens import Reader, reader, whole


def words_ids(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """The ids of the words without special tokens, and the number of each id's word (None: of none).

    A space that is a piece of its own belongs to the word behind it. A word that the tokenizer reads as nothing, such
    as a zero-width space or spaces alone, is left out: its number is not in the list. What spells a special token is
    read as plain text.

    Raises GraftuneError for a tokenizer that does not tell where its pieces stand and reads a word otherwise within a
    sentence than alone.
    """
    read = reader(tokenizer)
    plain = [whole(word).strip() for word in words]
    kept = [number for number, word in enumerate(plain) if word]
    alone = read.ids([plain[number] for number in kept])
    kept = [number for number, ids in zip(kept, alone, strict=True) if len(ids) > 1 or read.decoded(ids).strip()]
    ids, places = _pieces(tokenizer, read, [plain[number] for number in kept])
    return ids, [kept[place] if place is not None else None for place in places]


def _pieces(tokenizer: Any, read: Reader, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    text = " ".join(words)
    ids = read.ids([text])[0]
    space = read.space
    if space is not None:
        # Most tokenizers read each word by itself: that is exact even where they miscount characters they leave out.
        alone = read.ids([space + word if place else word for place, word in enumerate(words)])
        if list(chain(*alone)) == ids:
            return ids, [place for place, own in enumerate(alone) for _ in own]
    offsets = read.offsets(text)
    if offsets is not None:
        return ids, _at(text, words, offsets)
    if space is not None:
        return list(chain(*alone)), [place for place, own in enumerate(alone) for _ in own]
    raise GraftuneError(
        "tagging needs to know which pieces belong to which word",
        received=f"{type(tokenizer).__name__}, a tokenizer that does not tell",
        expected="a fast tokenizer (tokenizer.json)",
        do="save the base with its fast tokenizer",
    )


def _at(text: str, words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The word of each piece, by the piece's last letter: a space belongs to the word of the piece behind it."""
    ends = list(accumulate(len(word) + 1 for word in words))
    numbers: list[int | None] = []
    following: int | None = None
    for start, end in reversed(offsets):
        if letters := len(text[start:end].rstrip()):
            following = bisect_right(ends, start + letters - 1)
        numbers.append(following)
    return numbers[::-1]
