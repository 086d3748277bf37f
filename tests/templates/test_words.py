"""Words and their pieces: as the tokenizer itself reads the words with spaces between them."""

from __future__ import annotations

import importlib.resources

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from graftune.errors import GraftuneError
from graftune.templates.words import words_ids
from real_tokenizers import SENTENCES, TOKENIZERS
from templates.test_tokens import own, spells_none

#: Tokenizers that read every word by itself: what they say with is_split_into_words is what a sentence gives.
SPLITTING = ["bert", "roberta_prefix", "t5", "xlm_roberta", "mbart", "xlnet"]
BYTE_LEVEL = ["gpt2", "roberta", "modernbert", "llama3"]
BASES = [
    AutoTokenizer.from_pretrained(str(importlib.resources.files("graftune.bases") / name))
    for name in ("tiny_encoder", "tiny_decoder")
]

letters = st.text("aeinrstAlü茶喜шו", min_size=1, max_size=6)
anything = st.one_of(
    st.sampled_from(" ".join(SENTENCES).split()),
    st.sampled_from(
        ["\u200b", "\u00ad", "\x01", "e\u0301", "👩\u200d🚀", "\u202eab", "½", "''", "n't", ".", "[MASK]", "</s>"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
)
sentences = st.lists(anything, max_size=7)
names = st.sampled_from(sorted(TOKENIZERS))


@given(names, sentences)
def test_the_ids_are_those_of_the_words_with_spaces_between_them(name, words):
    tokenizer = TOKENIZERS[name]()
    words = [word for word in words if word.split() == [word] and tokenizer.decode(own(tokenizer, word)).strip()]
    assume(spells_none(tokenizer, " ".join(words)))
    ids, numbers = words_ids(tokenizer, words)
    assert ids == own(tokenizer, " ".join(words))
    assert len(numbers) == len(ids)
    assert numbers == sorted(numbers)


@given(st.sampled_from(SPLITTING), st.lists(letters, min_size=1, max_size=6))
def test_the_numbers_are_those_of_the_tokenizer(name, words):
    tokenizer = TOKENIZERS[name]()
    wanted = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    assert words_ids(tokenizer, words) == (wanted.input_ids, wanted.word_ids())


@given(
    st.sampled_from([*(TOKENIZERS[name]() for name in BYTE_LEVEL), *BASES]), st.lists(letters, min_size=1, max_size=6)
)
def test_no_words_are_glued_on_byte_level_tokenizers(tokenizer, words):
    pieces = [own(tokenizer, f" {word}" if place else word) for place, word in enumerate(words)]
    numbers = [place for place, ids in enumerate(pieces) for _ in ids]
    assert words_ids(tokenizer, words) == ([index for ids in pieces for index in ids], numbers)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_two_words_are_two_words(name):
    tokenizer = TOKENIZERS[name]()
    ids, numbers = words_ids(tokenizer, ["Anna", "lives"])
    assert ids == own(tokenizer, "Anna lives") != own(tokenizer, "Annalives")
    first = len(own(tokenizer, "Anna"))
    assert numbers == [0] * first + [1] * (len(ids) - first)


@given(names, sentences)
def test_no_word_takes_the_number_of_another(name, words):
    """A word's pieces are found whatever stands around it, and words without pieces count."""
    tokenizer = TOKENIZERS[name]()
    _, numbers = words_ids(tokenizer, [*words, "\u200b", "", "Anna", " ", "\x01", "in"])
    place = len(words)
    assert {place + 2, place + 5} <= set(numbers)
    assert not {place + 1, place + 3} & set(numbers)
    assert numbers.count(place + 5) == len(own(tokenizer, "a in")) - len(own(tokenizer, "a"))


@pytest.mark.parametrize("word", ["\u200b", "\u00ad", "\x01"])
def test_a_word_that_bert_leaves_out_has_no_piece(word):
    tokenizer = TOKENIZERS["bert"]()
    assert tokenizer.tokenize(word) == []
    ids, numbers = words_ids(tokenizer, ["Anna", word, "lives"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["anna", "lives"]
    assert numbers == [0, 2]


def test_every_chinese_character_begins_like_a_word():
    words = list("喝茶。")
    for name, pieces in {
        "bert": ["喝", "茶", "。"],
        "xlm_roberta": ["▁", "喝", "▁", "茶", "▁", "。"],
    }.items():
        tokenizer = TOKENIZERS[name]()
        ids, numbers = words_ids(tokenizer, words)
        assert ids == tokenizer(words, is_split_into_words=True, add_special_tokens=False).input_ids
        assert numbers == sorted(list(range(3)) * (len(pieces) // 3))
        known = [token for token in pieces if token in tokenizer.get_vocab()]
        assert [token for token in tokenizer.convert_ids_to_tokens(ids) if token != tokenizer.unk_token] == known


def test_no_words_have_no_pieces():
    for build in TOKENIZERS.values():
        assert words_ids(build(), []) == ([], [])
        assert words_ids(build(), ["", " "]) == ([], [])


def test_a_tokenizer_that_reads_a_word_otherwise_in_a_sentence_and_tells_no_places_is_refused():
    class Counting:
        def __call__(self, text, **options):
            return type("Ids", (), {"input_ids": [[len(one)] for one in text]})

        def decode(self, ids):
            return "?"

    with pytest.raises(GraftuneError, match="a fast tokenizer"):
        words_ids(Counting(), ["a", "b"])
