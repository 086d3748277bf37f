"""Random bases in the shapes that step times are compared on, and the rows they are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from graftune import bases
from graftune.tasks.data import Row
from graftune.tasks.generate import Generate
from graftune.tasks.task import Features
from graftune.tasks.template import Template

SHAPES = ("gpt2-124m", "smollm2-135m", "tiny-decoder")


def base(shape: str, dtype: torch.dtype = torch.float32) -> Any:
    """GPT-2 124M, SmolLM2-135M (30 layers of 576, 3 key/value heads, tied head) or the shipped decoder."""
    torch.manual_seed(0)
    if shape == "gpt2-124m":
        model = GPT2LMHeadModel(GPT2Config())
    elif shape == "smollm2-135m":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
                max_position_embeddings=2048,
            )
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(bases.path("tiny-decoder"), dtype=torch.float32)
    return model.to(dtype).eval()


def tokenizer() -> Any:
    """The shipped decoder's tokenizer serves all shapes: its ids lie in every vocabulary."""
    return AutoTokenizer.from_pretrained(bases.path("tiny-decoder"))


def rows(train: Path, count: int) -> list[Features]:
    """The first rows of E2E as ids and labels, the loss on the text alone."""
    task, words = Generate(), tokenizer()
    lines = train.read_text(encoding="utf-8").splitlines()[:count]
    pairs = [json.loads(line) for line in lines]
    return [
        task.encode(Row(p["table"], p["text"], n), words, Template("{input}"), 10**6) for n, p in enumerate(pairs, 1)
    ]
