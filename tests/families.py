"""Tiny random bases of the families that the laws are checked on."""

from __future__ import annotations

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

VOCABULARY = 97
END = 0
PAD = 1
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}


def gpt2_config() -> GPT2Config:
    return GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=128, **COMMON)


def llama_config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        **COMMON,
    )


def bert_config() -> BertConfig:
    return BertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        **COMMON,
    )


def modernbert_config() -> ModernBertConfig:
    return ModernBertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        layer_types=["full_attention"] * 3,
        max_position_embeddings=128,
        classifier_pooling="mean",
        cls_token_id=END,
        sep_token_id=END,
        **COMMON,
    )


FAMILIES = {
    "gpt2": (GPT2LMHeadModel, GPT2ForSequenceClassification, gpt2_config),
    "llama": (LlamaForCausalLM, LlamaForSequenceClassification, llama_config),
    "bert": (BertForMaskedLM, BertForSequenceClassification, bert_config),
    "modernbert": (ModernBertForMaskedLM, ModernBertForSequenceClassification, modernbert_config),
}
DECODERS = ("gpt2", "llama")
WITHOUT_BIASES = ("llama", "modernbert")


def base(family: str, *, classifier: bool = False, seed: int = 0) -> PreTrainedModel:
    """A random base with weights large enough that every part matters."""
    language, sequence, config = FAMILIES[family]
    return randomised(sequence if classifier else language, config(), seed)


def randomised(model_class: type[PreTrainedModel], config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model of this class with weights large enough that every part matters."""
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model.eval()


def batch(lengths: tuple[int, ...] = (9, 5, 7, 6), *, left: bool = False, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random rows of these lengths, padded on one side: input_ids and attention_mask (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        span = slice(width - length, width) if left else slice(0, length)
        ids[row, span] = torch.randint(3, VOCABULARY, (length,), generator=generator)
        mask[row, span] = 1
    return {"input_ids": ids, "attention_mask": mask}
