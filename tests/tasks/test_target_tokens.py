"""Targets as the tokenizer's own text_target gives them, and decoder inputs as the models' own functions give them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM as Model
from transformers import (
    BartConfig,
    BertConfig,
    EncoderDecoderConfig,
    FSMTConfig,
    GPT2Config,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    PegasusConfig,
    PLBartConfig,
    T5Config,
    T5GemmaConfig,
)
from transformers.models.m2m_100.modeling_m2m_100 import shift_tokens_right as m2m_shift

from graftune.errors import GraftuneError
from graftune.tasks.targets import (
    TargetForm,
    decoder_start,
    forced_start,
    languages,
    many_target_ids,
    target_form,
    target_ids,
    with_languages,
    wraps,
)
from real_tokenizers import SENTENCES, TOKENIZERS, m2m100, marian, marian_separate, mbart, mbart50, nllb, t5
from templates.test_tokens import specials, texts

names = st.sampled_from(sorted(TOKENIZERS))
LANGUAGES = {
    "mbart": ("de_DE", "fr_XX"),
    "mbart50": ("de_DE", "fr_XX"),
    "nllb": ("deu_Latn", "fra_Latn"),
    "m2m100": ("de", "fr"),
}


@given(names, texts)
def test_a_target_is_what_text_target_gives(name, text):
    tokenizer = TOKENIZERS[name]()
    inner = tokenizer(text_target=text, add_special_tokens=False).input_ids
    assume(str(tokenizer.unk_token) not in text and not specials(tokenizer, inner))
    assert target_ids(tokenizer, text) == tokenizer(text_target=text).input_ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_target_never_becomes_a_special_token(name):
    tokenizer = TOKENIZERS[name]()
    around = specials(tokenizer, tokenizer(text_target="a").input_ids)
    for token in tokenizer.all_special_tokens:
        assert specials(tokenizer, target_ids(tokenizer, f"on {token} off")) == around


def test_marians_targets_have_a_vocabulary_of_their_own():
    for tokenizer in (marian(), marian_separate()):
        text = SENTENCES[5]
        assert target_ids(tokenizer, text) == tokenizer(text_target=text).input_ids != tokenizer(text).input_ids


@pytest.mark.parametrize("name", LANGUAGES)
def test_languages_are_set_on_a_copy(name):
    tokenizer = TOKENIZERS[name]()
    source, target = LANGUAGES[name]
    before = (tokenizer.src_lang, tokenizer.tgt_lang, tokenizer("Anna").input_ids, target_ids(tokenizer, "Anna"))
    found = with_languages(tokenizer, source, target)
    wanted = type(tokenizer).from_pretrained(tokenizer.name_or_path, src_lang=source, tgt_lang=target)
    assert type(found) is type(tokenizer)
    assert found("Anna").input_ids == wanted("Anna").input_ids
    assert target_ids(found, "Anna") == wanted(text_target="Anna").input_ids
    assert found("Anna").input_ids == wanted("Anna").input_ids
    assert before == (
        tokenizer.src_lang,
        tokenizer.tgt_lang,
        tokenizer("Anna").input_ids,
        target_ids(tokenizer, "Anna"),
    )
    assert before[2] != wanted("Anna").input_ids
    assert with_languages(tokenizer, None, None) is tokenizer  # the checkpoint sets both
    assert with_languages(tokenizer, None, target)("Anna").input_ids == before[2]


def test_the_languages_of_tokenizers():
    assert {name for name in TOKENIZERS if languages(TOKENIZERS[name]())} == set(LANGUAGES)
    assert "eng_Latn" in languages(nllb()) and len(languages(nllb())) > 200
    assert "en_XX" in languages(mbart()) and len(languages(mbart())) == 25
    assert "en" in languages(m2m100()) and len(languages(m2m100())) == 100


def test_a_wrong_language_is_named():
    with pytest.raises(GraftuneError, match="unknown language 'eng_Latin'") as caught:
        with_languages(nllb(), "eng_Latin", "fra_Latn")
    assert "did you mean 'eng_Latn'?" in str(caught.value)
    with pytest.raises(GraftuneError, match="did you mean 'ro_RO'"):
        with_languages(mbart(), "en_XX", "ro")


@pytest.mark.parametrize("name", ["t5", "marian", "bert", "gpt2"])
def test_a_tokenizer_without_languages_takes_none(name):
    tokenizer = TOKENIZERS[name]()
    assert languages(tokenizer) == ()
    assert with_languages(tokenizer, None, None) is tokenizer
    assert forced_start(tokenizer) is None
    with pytest.raises(GraftuneError, match="knows no languages"):
        with_languages(tokenizer, "en", None)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_tokenizer_that_needs_languages_says_so(name):
    tokenizer = TOKENIZERS[name]()
    source, target = LANGUAGES[name]
    unset = type(tokenizer).from_pretrained(tokenizer.name_or_path, src_lang=None, tgt_lang=None)
    with pytest.raises(GraftuneError, match="the source language is not set"):
        with_languages(unset, None, target)
    with pytest.raises(GraftuneError, match="the target language is not set") as caught:
        with_languages(unset, source, None)
    assert "set tgt_lang" in str(caught.value)
    with pytest.raises(GraftuneError, match="the target language is not set"):
        target_ids(unset, "Anna")
    assert with_languages(unset, source, target).tgt_lang == target


def test_a_decoder_writes_the_language_first_where_targets_begin_with_it():
    for build in (nllb, mbart50, m2m100):
        tokenizer = build()
        for code in LANGUAGES[build.__name__]:
            token = f"__{code}__" if build is m2m100 else code
            assert forced_start(tokenizer, code) == tokenizer.convert_tokens_to_ids(token)
        assert forced_start(tokenizer) == target_ids(tokenizer, "Anna")[0]
    assert forced_start(mbart(), "fr_XX") is None


# Decoders ---------------------------------------------------------------------------------------------------

SMALL = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}
TINY_T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 50}


def bert_gpt2(**options):
    encoder = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=50)
    decoder = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=50, pad_token_id=3, bos_token_id=4, eos_token_id=4)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    for name, value in options.items():
        setattr(config, name, value)
    return config


CONFIGS = {
    "T5": lambda: T5Config(**TINY_T5, decoder_start_token_id=0),
    "BART": lambda: BartConfig(**SMALL),
    "mBART": lambda: MBartConfig(**SMALL),
    "PLBart": lambda: PLBartConfig(**SMALL),
    "FSMT": lambda: FSMTConfig(**SMALL, langs=["en", "de"], src_vocab_size=50, tgt_vocab_size=50),
    "Marian": lambda: MarianConfig(**SMALL, decoder_start_token_id=49, pad_token_id=49, decoder_vocab_size=50),
    "M2M100": lambda: M2M100Config(**SMALL),
    "Pegasus": lambda: PegasusConfig(**SMALL),
    "EncoderDecoder": lambda: bert_gpt2(decoder_start_token_id=7, pad_token_id=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_decoder_inputs_are_the_models_own(name):
    model = Model.from_config(CONFIGS[name]())
    rows = [[11, 12, 13, 14, 2], [21, 22, 2], [2]]
    labels = torch.tensor([row + [-100] * (5 - len(row)) for row in rows])
    tokenizer = mbart() if name in ("mBART", "PLBart") else t5()
    start = decoder_start(model.config, tokenizer)
    if name == "M2M100":  # whose model does this in forward alone
        wanted = m2m_shift(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
    else:
        wanted = model.prepare_decoder_input_ids_from_labels(labels=labels.clone())
    form = TargetForm([], [], start, wraps(model.config))
    for row, own in zip(rows, wanted.tolist(), strict=True):
        assert form.decoder_inputs(row) == own[: len(row)]


@pytest.mark.parametrize(
    ("config", "start"),
    [
        (T5Config(**TINY_T5), 0),
        (BartConfig(**SMALL), 2),
        (MarianConfig(**SMALL, decoder_start_token_id=49), 49),
        (PegasusConfig(**SMALL), 0),
        (bert_gpt2(decoder_start_token_id=7), 7),
        (GPT2Config(), None),
        (T5GemmaConfig(), T5GemmaConfig().decoder.bos_token_id),
    ],
)
def test_the_token_a_decoder_begins_with(config, start):
    assert decoder_start(config, t5()) == start


def test_a_decoder_config_may_say_how_it_begins():
    config = bert_gpt2()
    config.decoder.decoder_start_token_id = 9
    assert decoder_start(config, t5()) == 9


def test_mbarts_decoder_begins_with_the_target_language():
    for own in (None, 5):
        tokenizer = with_languages(mbart(), "en_XX", "de_DE")
        config = MBartConfig(**SMALL, decoder_start_token_id=own)
        assert decoder_start(config, tokenizer) == tokenizer.convert_tokens_to_ids("de_DE")
        labels = torch.tensor([target_ids(tokenizer, "Anna lives")])
        wanted = Model.from_config(config).prepare_decoder_input_ids_from_labels(labels)
        assert target_form(tokenizer, config).decoder_inputs(labels[0].tolist()) == wanted[0].tolist()


def test_a_model_that_does_not_say_how_its_decoder_begins_is_refused():
    with pytest.raises(GraftuneError, match="with which token its decoder begins") as caught:
        decoder_start(bert_gpt2(), t5())
    assert "set config.decoder_start_token_id" in str(caught.value)


def test_many_targets_are_each_as_by_itself():
    for build in TOKENIZERS.values():
        tokenizer = build()
        assert many_target_ids(tokenizer, SENTENCES) == [target_ids(tokenizer, text) for text in SENTENCES]
