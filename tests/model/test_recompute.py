"""Gradient checkpointing computes layers twice, and the base stays without dropout both times."""

from __future__ import annotations

import pytest
import torch
import transformers as t

from families import COMMON, batch, randomised
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS

OPT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32}
GPT2 = {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 128}
BASES = {
    "gpt2": lambda: randomised(t.GPT2LMHeadModel, t.GPT2Config(**GPT2, **COMMON)),
    "opt": lambda: randomised(t.OPTForCausalLM, t.OPTConfig(**OPT, **COMMON, dropout=0.5)),
}


def runs(base: str, *, checkpointing: bool, training: bool = True) -> tuple[int, torch.Tensor]:
    """How often the attentions ran, forward and backward, and the logits."""
    model = AdaptedModel(BASES[base]())
    if checkpointing:
        model.base.gradient_checkpointing_enable({"use_reentrant": False})
    model.add("a", METHODS["lora"], seed=0)
    model.train(training)
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    for site in model.anatomy.attentions:
        model.anatomy.modules[site.path].register_forward_hook(counted)
    logits = model(**batch(), adapters="a").logits
    logits.pow(2).mean().backward()
    return count, logits.detach()


@pytest.mark.parametrize("base", BASES)
def test_layers_run_again_in_the_backward_pass_without_dropout(base: str) -> None:
    once, plain = runs(base, checkpointing=False)
    twice, same = runs(base, checkpointing=True)
    assert (once, twice) == (3, 6)
    torch.testing.assert_close(same, plain)
    assert runs(base, checkpointing=True, training=False)[0] == 3


def test_checkpointing_is_left_as_it_was() -> None:
    base = BASES["gpt2"]()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    before = [layer._gradient_checkpointing_func for layer in base.transformer.h]
    model = AdaptedModel(base)
    model.train()
    model.eval()
    assert [layer._gradient_checkpointing_func for layer in base.transformer.h] == before
    assert not any(module.training for module in base.modules())
