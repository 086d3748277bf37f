"""Random bases in the shapes that step times are compared on, and the rows they are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

from graftune import bases
from graftune.datasets.rows import Row
from graftune.model.layers import is_linear
from graftune.tasks.batches import IGNORED
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.generate import Generate
from graftune.templates.template import Template

SHAPES = ("gpt2-124m", "smollm2-135m", "tiny-decoder")


def config(shape: str) -> Any:
    """GPT-2 124M, SmolLM2-135M (30 layers of 576, 3 key/value heads, tied head) or the shipped decoder."""
    if shape == "gpt2-124m":
        return GPT2Config()
    if shape == "smollm2-135m":
        return LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
        )
    return AutoConfig.from_pretrained(bases.path("tiny-decoder"))


def base(shape: str, dtype: torch.dtype = torch.float32) -> Any:
    """A base with its weights, the same at each call, and without dropout, which Graftune leaves off."""
    torch.manual_seed(0)
    if shape == "tiny-decoder":
        model = AutoModelForCausalLM.from_pretrained(bases.path(shape), dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_config(config(shape), dtype=torch.float32)
    return without_dropout(model).to(dtype).eval()


def without_dropout(model: nn.Module) -> nn.Module:
    """The model with every dropout at zero, in training mode too: the function that Graftune trains."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    return model


def tokenizer() -> Any:
    """The shipped decoder's tokenizer serves all shapes: its ids lie in every vocabulary."""
    return AutoTokenizer.from_pretrained(bases.path("tiny-decoder"))


def task(config: Any) -> BoundTask:
    """Generation on a base of that config."""
    return Generate().bind(config, tokenizer())


def rows(train: Path, count: int) -> list[Features]:
    """The first rows of E2E as ids and labels, the loss on the text alone."""
    words = tokenizer()
    bound, encoder = task(config("tiny-decoder")), PromptEncoder(words, Template("{input}"), 10**6)
    lines = train.read_text(encoding="utf-8").splitlines()[:count]
    pairs = [json.loads(line) for line in lines]
    return [f for n, p in enumerate(pairs, 1) for f in bound.encode(Row(p["table"], p["text"], n), encoder)]


def floor_flops(shape: str, features: list[Features], steps: int) -> float:
    """The operations that one of ``steps`` steps over these rows cannot do without.

    Forward pass and activation gradients of the frozen base, 2 operations a weight each: its linear maps on real
    tokens, its head on the label positions alone. Left out are the products inside attention, all that is no
    product, and the adapter's own; counted though not needed is the gradient that would leave the first layer.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(shape))
    head = model.get_output_embeddings()
    linears = sum(m.weight.numel() for m in model.modules() if is_linear(m) and m is not head)
    tokens = sum(len(f.ids) for f in features)
    targets = sum(label != IGNORED for f in features for label in f.labels)
    return 4 * (linears * tokens + head.weight.numel() * targets) / steps
