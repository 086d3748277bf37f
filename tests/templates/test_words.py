"""Words as lists: never glued, never shifted, on tokenizers of every kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from graftune import bases
from graftune.templates.words import words_ids

TEXT = ["Anna lives in New York.", "the sea is wide and the boats are small", "she left at noon, he stayed"]
WORD = st.text(st.characters(exclude_categories=["Cs", "Zs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=6)


def trained(model, trainer, normalizer=None, before=None, **special) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = before
    if isinstance(before, pre_tokenizers.ByteLevel):
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level(prefix: bool) -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["</s>"], initial_alphabet=alphabet)
    return trained(models.BPE(), trainer, None, pre_tokenizers.ByteLevel(add_prefix_space=prefix), eos_token="</s>")


KINDS = {
    "byte-level": lambda: byte_level(False),
    "byte-level with a prefix space": lambda: byte_level(True),
    "WordPiece": lambda: trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[SEP]"]),
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
        unk_token="[UNK]",
        sep_token="[SEP]",
    ),
    "unigram": lambda: trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>", "</s>"], unk_token="<unk>"),
        None,
        pre_tokenizers.Metaspace(),
        unk_token="<unk>",
        eos_token="</s>",
    ),
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
    assert ids == own.input_ids
    known = [number for number in numbers if number is not None]
    assert known == sorted(known)
    assert len(numbers) == len(ids)
    # each word by itself: its own characters lead back to it
    text = " ".join(words)
    starts = [len(" ".join(words[:n])) + (n > 0) for n in range(len(words))]
    for n, (start, word) in enumerate(zip(starts, words, strict=True)):
        token = own.char_to_token(start)
        if token is not None and text[start : start + len(word)] == word:
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
