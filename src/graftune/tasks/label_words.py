"""Label words: the one token by which a language model names each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftune.errors import GraftuneError
from graftune.templates.template import tokens


@dataclass(frozen=True)
class LabelWords:
    """`lead` ends the prompt (a space that is a token of its own, or nothing); `ids[i]` names label i.

    `longer` has the pieces of the words that are more than one token, by label.
    """

    lead: list[int]
    ids: list[int]
    longer: dict[str, list[str]]


def label_words(tokenizer: Any, words: Mapping[str, str]) -> LabelWords:
    """The first token of each label's word, written as it is after other text and a space.

    Raises GraftuneError when two labels share that token or a word has none.
    """
    # How a space joins a word differs between tokenizers; after some text each shows its own way.
    start = tokens(tokenizer, "a")
    after = {label: _after(start, tokens(tokenizer, f"a {word}")) for label, word in words.items()}
    lead = _after(start, tokens(tokenizer, "a "))
    if not all(ids[: len(lead)] == lead for ids in after.values()):
        lead = []
    firsts = {label: ids[len(lead) : len(lead) + 1] for label, ids in after.items()}
    for label, first in firsts.items():
        if not first or not words[label].strip():
            raise GraftuneError(
                f"label {label!r} has a word without a token",
                received=repr(words[label]),
                expected="a word the tokenizer knows",
                do="give it another word: verbalizer={label: word}",
            )
        same = [other for other in firsts if firsts[other] == first]
        if len(same) > 1:
            raise GraftuneError(
                "label words begin with the same token",
                received=", ".join(f"{other!r} -> {words[other]!r}" for other in same),
                expected="words whose first tokens differ",
                do="give these labels other words: verbalizer={label: word}",
            )
    rests = {label: ids[len(lead) :] for label, ids in after.items()}
    longer = {label: list(tokenizer.convert_ids_to_tokens(ids)) for label, ids in rests.items() if len(ids) > 1}
    return LabelWords(lead, [first[0] for first in firsts.values()], longer)


def _after(start: list[int], whole: list[int]) -> list[int]:
    return whole[len(start) :] if whole[: len(start)] == start else []
