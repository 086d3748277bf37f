"""Targets of encoder-decoders, against the tokenizers' and the models' own functions."""

from __future__ import annotations

import sys

import pytest
import torch
import transformers as t
from hypothesis import given
from hypothesis import strategies as st

import real_tokenizers as real
from graftune.datasets import Row
from graftune.inference.generation import write
from graftune.model.adapted import AdaptedModel
from graftune.tasks import Translate
from graftune.tasks.features import PromptEncoder
from graftune.tasks.targets import target_ids, with_languages

LAYERS = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1, "decoder_attention_heads": 1,
    "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip


def t5() -> t.PreTrainedModel:
    config = t.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=120)
    config.decoder_start_token_id = 0  # T5Config has none in this version; the model's own shift needs one
    return t.T5ForConditionalGeneration(config)


def encoder_decoder() -> t.PreTrainedModel:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 160,
    }
    decoder = t.BertConfig(**sizes, is_decoder=True, add_cross_attention=True)
    config = t.EncoderDecoderConfig.from_encoder_decoder_configs(t.BertConfig(**sizes), decoder)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return t.EncoderDecoderModel(config)


def of(model: type, config: type, **ids) -> t.PreTrainedModel:
    return model(config(**LAYERS, **ids))


KINDS = {
    "t5": (real.t5, t5, {}),
    "bart": (real.roberta, lambda: of(t.BartForConditionalGeneration, t.BartConfig, vocab_size=340, pad_token_id=1,
             bos_token_id=0, eos_token_id=2, decoder_start_token_id=2), {}),
    "marian": (real.marian, lambda: of(t.MarianMTModel, t.MarianConfig, vocab_size=len(real.marian()),
               pad_token_id=len(real.marian()) - 1, eos_token_id=1,
               decoder_start_token_id=len(real.marian()) - 1), {}),
    "nllb": (real.nllb, lambda: of(t.M2M100ForConditionalGeneration, t.M2M100Config, vocab_size=len(real.nllb()),
             decoder_start_token_id=2), {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}),
    "mbart": (real.mbart, lambda: of(t.MBartForConditionalGeneration, t.MBartConfig, vocab_size=len(real.mbart())),
              {"src_lang": "en_XX", "tgt_lang": "de_DE"}),
    "mbart50": (real.mbart50, lambda: of(t.MBartForConditionalGeneration, t.MBartConfig, vocab_size=len(real.mbart50()),
                decoder_start_token_id=2), {"src_lang": "en_XX", "tgt_lang": "de_DE"}),
    "encoder-decoder": (real.bert, encoder_decoder, {}),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    tokenizer, model, languages = KINDS[request.param]
    torch.manual_seed(0)
    return tokenizer(), model().eval(), languages


def bound(case, **options):
    tokenizer, model, languages = case
    return Translate(max_new_tokens=5, **languages, **options).bind(model.config, tokenizer)


@given(text=st.text("ab cdeghilnostu", min_size=1, max_size=12).filter(str.strip))
def test_a_target_is_what_the_tokenizer_makes_of_a_target(case, text):
    tokenizer, _, languages = case
    told = with_languages(tokenizer, languages.get("src_lang"), languages.get("tgt_lang"))
    assert target_ids(told, text) == told(text_target=text)["input_ids"]
    (features,) = bound(case).encode(Row("a b", text, 1), PromptEncoder(told))
    assert features.labels == told(text_target=text)["input_ids"]
    assert features.ids == told("a b")["input_ids"]


def test_the_decoder_reads_what_the_models_own_shift_gives(case):
    _, model, _ = case
    task = bound(case)
    features = [
        part
        for row in (Row("a", "a b", 1), Row("b", "b a b", 2))
        for part in task.encode(row, PromptEncoder(task.processor))
    ]
    batch = task.collate(features)
    labels = batch["labels"].clone()
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        own = model.prepare_decoder_input_ids_from_labels(labels=labels)
    else:
        shift = sys.modules[type(model).__module__].shift_tokens_right
        own = shift(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
    real_positions = batch["labels"] != -100
    assert torch.equal(batch["decoder_input_ids"][real_positions], own[real_positions])


def test_generation_starts_as_training_does(case):
    """The first tokens that the decoder reads and writes are those of every target."""
    _, base, _ = case
    task, model = bound(case), AdaptedModel(base)
    seen: list[torch.Tensor] = []
    handle = base.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"] if "input_ids" in kwargs else args[0]),
        with_kwargs=True,
    )
    write(model, task, [Row("a b", "a", 1)], None, PromptEncoder(task.processor), 1)
    handle.remove()
    labels = task.answer(Row("a b", "a", 1))
    assert seen[0][0].tolist() == task.targets.decoder_inputs(labels)[:1]
    if task.targets.opening:
        assert seen[1][0, -1].item() == labels[0]
