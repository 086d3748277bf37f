"""Words: which pieces of a sentence that is split into words belong to which word.

One rule for every tokenizer: the words are read as the sentence in which one space stands between any two, so that no
two are glued together. Scripts without spaces are no exception: where every Chinese character is a word, each has a
space before it, as a tokenizer that is loaded with `add_prefix_space=True` gives it, and BERT's see no difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Any

from graftune.errors import GraftuneError
from graftune.templates.tokens import Reader, reader, whole

_PROBE = ("a", "b", "a", "cd")


def words_ids(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """The ids of the words without special tokens, and the number of each id's word (None: of none).

    A space that is a piece of its own belongs to the word behind it. A word without a piece, such as a zero-width space
    that the tokenizer leaves out, has no number in the list; so has a word of spaces alone. What spells a special token
    is read as plain text.

    Raises GraftuneError for a tokenizer that does not tell where its pieces stand and reads a word otherwise within a
    sentence than alone.
    """
    plain = [whole(word).strip() for word in words]
    read = reader(tokenizer)
    text = " ".join(word for word in plain if word)
    offsets = read.offsets(text)
    if offsets is None:
        return _one_by_one(tokenizer, read, plain)
    ends: list[int] = []  # where each word ends in the text; one that is left out ends with the one before it
    for word in plain:
        before = ends[-1] if ends else 0
        ends.append(before + len(word) + (1 if word and before else 0))
    numbers = [bisect_right(ends, start) for start, _ in offsets]
    return read.ids([text])[0], [number if number < len(ends) else None for number in numbers]


def _one_by_one(tokenizer: Any, read: Reader, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """Each word by itself, with the space before it that the tokenizer wants."""
    probe = read.ids([" ".join(_PROBE)])[0]
    for space in ("", " "):
        first = next((i for i, word in enumerate(words) if word), 0)
        if list(chain(*read.ids([_PROBE[0], *(space + word for word in _PROBE[1:])]))) == probe:
            pieces = read.ids([word if i == first or not word else space + word for i, word in enumerate(words)])
            numbers: list[int | None] = [number for number, ids in enumerate(pieces) for _ in ids]
            return list(chain(*pieces)), numbers
    raise GraftuneError(
        "tagging needs to know which pieces belong to which word",
        received=f"{type(tokenizer).__name__}, a tokenizer that does not tell",
        expected="a fast tokenizer (tokenizer.json)",
        do="save the base with its fast tokenizer",
    )
