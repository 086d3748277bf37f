"""Tiny random bases of every kind that the methods are promised for, and inputs of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers as t
from torch import Tensor
from transformers import PreTrainedModel

from families import COMMON, VOCABULARY, batch, randomised

Inputs = dict[str, Tensor]
Kind = Literal["text", "encoder-decoder", "image"]

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = SIZES | COMMON | {"max_position_embeddings": 128}
GROUPED = TEXT | {"num_key_value_heads": 2}
IMAGE = SIZES | {"image_size": 8, "patch_size": 4, "num_channels": 1}
#: BART and Marian, with stacks of unequal depth.
STACKS = COMMON | {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}
T5 = COMMON | {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
DISTILBERT = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
SWIN = {"image_size": 16, "patch_size": 2, "num_channels": 1, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


@dataclass(frozen=True)
class Family:
    """A kind of input, and how a base is made."""

    kind: Kind
    model: type[PreTrainedModel]
    config: Callable[..., Any]
    options: Mapping[str, Any]

    def base(self) -> PreTrainedModel:
        """A random base, the same at each call."""
        return randomised(self.model, self.config(**self.options))

    def inputs(self, *, left: bool = False) -> Inputs:
        """Four rows, texts of unequal lengths padded on one side."""
        generator = torch.Generator().manual_seed(5)
        if self.kind == "image":
            size = self.options["image_size"]
            height, width = size if isinstance(size, list) else (size, size)
            return {"pixel_values": torch.randn(4, 1, height, width, generator=generator)}
        inputs = batch(left=left)
        if self.kind == "encoder-decoder":
            # As many as the encoder has columns: neither side may be taken for the other.
            inputs["decoder_input_ids"] = torch.randint(3, VOCABULARY, inputs["input_ids"].shape, generator=generator)
        return inputs

    def alone(self, inputs: Inputs, row: int) -> Inputs:
        """One row by itself, without padding."""
        own = {name: value[row : row + 1] for name, value in inputs.items() if name != "attention_mask"}
        if self.kind != "image":
            own["input_ids"] = own["input_ids"][:, inputs["attention_mask"][row].bool()]
        return own

    def of_row(self, output: Tensor, inputs: Inputs, row: int) -> Tensor:
        """What ``alone`` would give for the row, out of the batch's output."""
        return output[row][inputs["attention_mask"][row].bool()] if self.kind == "text" else output[row]


FAMILIES: dict[str, Family] = {
    "gpt-neox": Family("text", t.GPTNeoXForCausalLM, t.GPTNeoXConfig, TEXT),
    "opt": Family("text", t.OPTForCausalLM, t.OPTConfig, TEXT | OPT),
    "qwen3": Family("text", t.Qwen3ForCausalLM, t.Qwen3Config, GROUPED | {"head_dim": 8}),
    "gemma3": Family(
        "text",
        t.Gemma3ForCausalLM,
        t.Gemma3TextConfig,
        GROUPED | {"head_dim": 8, "sliding_window": 4, "layer_types": LAYERS},
    ),
    "phi3": Family("text", t.Phi3ForCausalLM, t.Phi3Config, GROUPED),
    "mistral": Family("text", t.MistralForCausalLM, t.MistralConfig, GROUPED | {"sliding_window": 4}),
    "mixtral": Family("text", t.MixtralForCausalLM, t.MixtralConfig, GROUPED | {"num_local_experts": 4}),
    "roberta": Family("text", t.RobertaForMaskedLM, t.RobertaConfig, TEXT),
    "distilbert": Family("text", t.DistilBertForMaskedLM, t.DistilBertConfig, COMMON | DISTILBERT),
    "electra": Family("text", t.ElectraForMaskedLM, t.ElectraConfig, TEXT | {"embedding_size": 16}),
    "t5": Family("encoder-decoder", t.T5ForConditionalGeneration, t.T5Config, T5 | {"decoder_start_token_id": 1}),
    "bart": Family("encoder-decoder", t.BartForConditionalGeneration, t.BartConfig, STACKS),
    "marian": Family("encoder-decoder", t.MarianMTModel, t.MarianConfig, STACKS),
    "vit": Family("image", t.ViTForImageClassification, t.ViTConfig, IMAGE),
    "deit": Family("image", t.DeiTForImageClassification, t.DeiTConfig, IMAGE),
    "dinov2": Family("image", t.Dinov2ForImageClassification, t.Dinov2Config, IMAGE | {"mlp_ratio": 2}),
    "swin": Family("image", t.SwinForImageClassification, t.SwinConfig, SWIN | {"window_size": 2}),
    "clip": Family("image", t.CLIPVisionModelWithProjection, t.CLIPVisionConfig, IMAGE | {"projection_dim": 16}),
}
