"""Tiny random bases of every kind that the methods are promised for, and inputs of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
import transformers as t
from torch import Tensor
from transformers import PreTrainedModel

import families
from families import COMMON, END, VOCABULARY, batch, randomised
from graftune.model.adapted import AdaptedModel

Inputs = dict[str, Tensor]
Kind = Literal["text", "encoder-decoder", "image"]

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = SIZES | COMMON | {"max_position_embeddings": 128}
GROUPED = TEXT | {"num_key_value_heads": 2}
IMAGE = SIZES | {"image_size": 8, "patch_size": 4, "num_channels": 1}
#: BART, mBART and Marian, with stacks of unequal depth.
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
#: More layers in the decoder than in the encoder would have too short a cache (Transformers 5.23).
T5 = COMMON | {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
DISTILBERT = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
#: Its attention is its own, with distances between the queries and keys.
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 32}
DEBERTA |= {"position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
SWIN = {"image_size": 16, "patch_size": 2, "num_channels": 1, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
#: A mixture with a shared expert beside the routed ones.
SHARED = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED |= {"shared_expert_intermediate_size": 24}
YOLOS = IMAGE | {"image_size": [8, 12], "num_detection_tokens": 5}
RESNET = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
DETR = {name: value for name, value in STACKS.items() if name not in COMMON} | {"num_queries": 5, "num_channels": 1}


def detr() -> t.DetrConfig:
    backbone = t.ResNetConfig(**RESNET, out_features=["stage2"])
    return t.DetrConfig(use_timm_backbone=False, backbone_config=backbone, **DETR)


@dataclass(frozen=True)
class Family:
    """A kind of input, and how a base is made."""

    kind: Kind
    model: type[PreTrainedModel]
    config: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The last token of each text, where a base reads its text there.
    end: int | None = None

    def base(self) -> PreTrainedModel:
        """A random base, the same at each call."""
        return randomised(self.model, self.config(**self.options))

    def inputs(self, *, left: bool = False, lengths: tuple[int, ...] = (9, 5, 7, 6)) -> Inputs:
        """A row per length: texts padded on one side, or as many images."""
        generator = torch.Generator().manual_seed(5)
        if self.kind == "image":
            size = self.options.get("image_size", 16)
            height, width = size if isinstance(size, list) else (size, size)
            return {"pixel_values": torch.randn(len(lengths), 1, height, width, generator=generator)}
        inputs = batch(lengths, left=left)
        if self.end is not None:
            last = -1 if left else torch.tensor(lengths) - 1
            inputs["input_ids"][torch.arange(len(lengths)), last] = self.end
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
        per_token = self.kind == "text" and output.dim() == 3
        return output[row][inputs["attention_mask"][row].bool()] if per_token else output[row]


FAMILIES: dict[str, Family] = {
    **{name: Family("text", language, config) for name, (language, _, config) in families.FAMILIES.items()},
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
    "qwen2-moe": Family("text", t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig, SHARED),
    "roberta": Family("text", t.RobertaForMaskedLM, t.RobertaConfig, TEXT),
    "distilbert": Family("text", t.DistilBertForMaskedLM, t.DistilBertConfig, COMMON | DISTILBERT),
    "electra": Family("text", t.ElectraForMaskedLM, t.ElectraConfig, TEXT | {"embedding_size": 16}),
    "deberta": Family("text", t.DebertaV2ForMaskedLM, t.DebertaV2Config, TEXT | DEBERTA),
    "albert": Family("text", t.AlbertForMaskedLM, t.AlbertConfig, TEXT | {"embedding_size": 16}),
    "clip-text": Family(
        "text", t.CLIPTextModelWithProjection, t.CLIPTextConfig, TEXT | {"projection_dim": 16}, end=END
    ),
    "t5": Family("encoder-decoder", t.T5ForConditionalGeneration, t.T5Config, T5 | {"decoder_start_token_id": 1}),
    "bart": Family("encoder-decoder", t.BartForConditionalGeneration, t.BartConfig, STACKS),
    "mbart": Family("encoder-decoder", t.MBartForConditionalGeneration, t.MBartConfig, STACKS),
    "marian": Family("encoder-decoder", t.MarianMTModel, t.MarianConfig, STACKS),
    "vit": Family("image", t.ViTForImageClassification, t.ViTConfig, IMAGE),
    "deit": Family("image", t.DeiTForImageClassification, t.DeiTConfig, IMAGE),
    "dinov2": Family("image", t.Dinov2ForImageClassification, t.Dinov2Config, IMAGE | {"mlp_ratio": 2}),
    "swin": Family("image", t.SwinForImageClassification, t.SwinConfig, SWIN | {"window_size": 2}),
    "clip-vision": Family("image", t.CLIPVisionModelWithProjection, t.CLIPVisionConfig, IMAGE | {"projection_dim": 16}),
    "yolos": Family("image", t.YolosForObjectDetection, t.YolosConfig, YOLOS),
    "detr": Family("image", t.DetrForObjectDetection, detr),
}


def output_of(model: Callable[..., Any], inputs: Inputs, **options: Any) -> Tensor:
    """What a base gives, as one tensor (B, …)."""
    output = model(**inputs, **options)
    if "pred_boxes" in output:
        return torch.cat([output.logits, output.pred_boxes], dim=-1)
    name = next(name for name in ("logits", "text_embeds", "image_embeds") if name in output)
    found: Tensor = output[name]
    return found


@cache
def _shared(family: str) -> AdaptedModel:
    return AdaptedModel(FAMILIES[family].base())


@contextmanager
def shared(family: str) -> Iterator[AdaptedModel]:
    """The one model of a family that all tests use, without adapters; it is so again behind the block."""
    model = _shared(family)
    try:
        yield model
    finally:
        model.close()
        model.eval()
        model.base.gradient_checkpointing_disable()
        model.zero_grad()
