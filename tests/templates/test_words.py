"""Words as lists: never glued, never shifted, on tokenizers of every kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import real_tokenizers as real
from graftune import bases
from graftune.templates.words import words_ids

WORD = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=6)


KINDS = {
    **{kind.__name__: kind for kind in (real.gpt2, real.llama3, real.roberta, real.bert, real.t5, real.llama2)},
    "tiny-encoder": lambda: AutoTokenizer.from_pretrained(bases.path("tiny-encoder")),
    "tiny-decoder": lambda: AutoTokenizer.from_pretrained(bases.path("tiny-decoder")),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@given(words=st.lists(st.one_of(WORD, st.sampled_from(["Anna", "</s>", "[SEP]", "lives"])), min_size=1, max_size=8))
def test_tokens_are_those_of_the_joined_text_and_words_come_in_order(tokenizer, words):
    ids, numbers = words_ids(tokenizer, words)
    own = tokenizer(" ".join(words), add_special_tokens=False, split_special_tokens=True)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert not specials & set(ids)
    if not specials & set(own.input_ids):  # a unigram model finds its own control tokens in the text
        assert ids == own.input_ids
    known = [number for number in numbers if number is not None]
    assert known == sorted(known)
    assert len(numbers) == len(ids)
    # each word by itself: its own characters lead back to it
    text = " ".join(words)
    starts = [len(" ".join(words[:n])) + (n > 0) for n in range(len(words))]
    for n, (start, word) in enumerate(zip(starts, words, strict=True)):
        token = own.char_to_token(start)
        if token is not None and ids == own.input_ids and text[start : start + len(word)] == word:
            assert numbers[token] is not None
            assert numbers[token] <= n


def test_words_are_not_glued(tokenizer):
    ids, numbers = words_ids(tokenizer, ["Anna", "lives"])
    assert ids == tokenizer("Anna lives", add_special_tokens=False).input_ids
    assert set(numbers) - {None} == {0, 1}
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip().lower()
    assert " " in text or "##" not in text


@pytest.mark.parametrize("nothing", ["\u200b", "\u00ad", "\x07"])
def test_a_word_without_tokens_shifts_no_other(tokenizer, nothing):
    ids, numbers = words_ids(tokenizer, ["Anna", nothing, "lives", "in"])
    firsts = {number: ids[numbers.index(number)] for number in set(numbers) - {None}}
    plain_ids, plain_numbers = words_ids(tokenizer, ["Anna", "lives", "in"])
    plain = {number: plain_ids[plain_numbers.index(number)] for number in set(plain_numbers) - {None}}
    assert firsts[0] == plain[0]
    assert firsts[3] == plain[2]
    assert 2 in firsts
