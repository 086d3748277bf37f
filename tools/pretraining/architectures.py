"""The two bases: a Llama-type decoder and a ModernBERT-type encoder, of one width, depth and vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, ModernBertConfig, ModernBertForMaskedLM, PreTrainedModel

from pretraining.text import VOCABULARY

HEAD_WIDTH = 64
CONTEXT = 512  # positions
END_ID, PAD_ID = 0, 1


@dataclass(frozen=True)
class Architecture:
    """A model in the two pieces that training needs apart, so that the head runs only where there is a target."""

    model: PreTrainedModel
    trunk: nn.Module  # ids (rows, length) -> hidden states (rows, length, width)
    head: nn.Module  # hidden states (…, width) -> logits (…, vocabulary)

    def hidden(self, ids: Tensor) -> Tensor:
        """Hidden states, (rows, length, width)."""
        states: Tensor = self.trunk(input_ids=ids).last_hidden_state
        return states

    def causal(self, is_causal: bool) -> None:
        """Let every attention see only what stands before, or everything."""
        for module in self.model.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = is_causal


def decoder(layers: int, width: int) -> Architecture:
    """Llama with grouped-query attention and tied embeddings."""
    heads = width // HEAD_WIDTH
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    return Architecture(model, model.model, model.lm_head)


def encoder(layers: int, width: int) -> Architecture:
    """ModernBERT with attention over the whole text in every layer, its masked-LM head, and tied embeddings."""
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        layer_types=["full_attention"] * layers,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        classifier_pooling="mean",  # no token was pretrained to stand for the whole text
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        cls_token_id=END_ID,
        sep_token_id=END_ID,
        pad_token_id=PAD_ID,
        attn_implementation="sdpa",
    )
    model = ModernBertForMaskedLM(config)
    return Architecture(model, model.model, nn.Sequential(model.head, model.decoder))
