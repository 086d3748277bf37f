"""Pairs as the tokenizer joins them, and data that spells special tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import real_tokenizers as real
from graftune.errors import GraftuneError
from graftune.templates import Template
from graftune.templates.tokens import text_ids
from tasks.conftest import byte_level

KINDS = {"WordPiece": real.bert, "RoBERTa": real.roberta, "T5": real.t5, "Llama 2": real.llama2, "GPT-2": real.gpt2}
PAIRS = ("WordPiece", "RoBERTa", "T5")  # have a form of their own for two texts
words = st.text(st.characters(codec="utf-8"), max_size=12).filter(str.strip)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@pytest.fixture(scope="module", params=PAIRS)
def joining(request):
    return KINDS[request.param]()


@given(first=words, second=words)
def test_a_pair_is_what_the_tokenizer_makes_of_two_texts(joining, first, second):
    found = Template("{premise}{sep}{hypothesis}").encode(joining, {"premise": first, "hypothesis": second}, 10**6)
    own = joining(first, second)
    assert found.ids == own["input_ids"]
    if "token_type_ids" in joining.model_input_names:
        assert found.type_ids == own["token_type_ids"]
    else:
        assert found.type_ids is None


@given(first=words, second=words, limit=st.integers(8, 20))
def test_a_pair_that_is_too_long_keeps_its_form(joining, first, second, limit):
    template = Template("{a}{sep}{b}")
    whole = template.encode(joining, {"a": first, "b": second}, 10**6)
    found = template.encode(joining, {"a": first, "b": second}, 10**6, limit)
    sides = [text_ids(joining, text) for text in (first, second)]
    assert len(found.ids) == min(limit, len(whole.ids))
    assert found.truncated == (len(whole.ids) > limit)
    if found.type_ids is not None and all(sides):
        ones = len(found.ids) - found.type_ids.index(1)
        assert found.ids[-ones:-1] == sides[1][: ones - 1]


def test_a_tokenizer_without_a_form_for_pairs_joins_by_a_new_line():
    tokenizer = byte_level()
    found = Template("{a}{sep}{b}").encode(tokenizer, {"a": "he", "b": "is"}, 1000)
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    assert found.ids == tokenizer("he").input_ids + newline + tokenizer("is").input_ids
    assert found.type_ids is None


def test_one_separator_at_most():
    with pytest.raises(GraftuneError, match=r"\{sep\} more than once"):
        Template("{a}{sep}{b}{sep}{c}")


@given(parts=st.lists(st.one_of(words, st.sampled_from(["[MASK]", "[SEP]", "</s>", "<s>", "<pad>"])), max_size=5))
def test_data_never_becomes_a_control_token(tokenizer, parts):
    text = " ".join(parts)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = text_ids(tokenizer, text)
    assert not specials & set(ids)
    own = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    if not specials & set(own):  # a unigram model finds its own control tokens in the text
        assert ids == own
    if not text.strip():
        return
    found = Template("say: {input}").encode(tokenizer, text, 10**6).ids
    around = tokenizer("say: x").input_ids
    assert sum(token in specials for token in found) == sum(token in specials for token in around)


def test_words_of_a_template_may_be_special():
    tokenizer = real.bert()
    found = Template("{input} [SEP] x").encode(tokenizer, "the sea", 10**6).ids
    assert found == tokenizer("the sea [SEP] x").input_ids
