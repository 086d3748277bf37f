"""Hidden states and the head on chosen ones are the base's logits, whatever it does to them."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from families import COMMON, DECODERS, FAMILIES, base, batch
from graftune.errors import GraftuneError
from graftune.methods.method import make
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, disturb
from model.test_kernels import gemma

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def cohere():
    """Scaled logits."""
    return CohereForCausalLM(CohereConfig(**SMALL, **COMMON, logit_scale=0.3)).eval()


def granite():
    """Divided logits."""
    return GraniteForCausalLM(GraniteConfig(**SMALL, **COMMON, logits_scaling=5.0)).eval()


def bart():
    """A bias added behind the head."""
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = BartForConditionalGeneration(BartConfig(**sizes, **heads, vocab_size=97)).eval()
    model.final_logits_bias.normal_()
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_logits(family: str, method: str) -> None:
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a")
    inputs = batch()
    with torch.no_grad():
        logits = model(**inputs, adapters="a").logits
        hidden = model.hidden(**inputs, adapters="a")
        assert hidden.shape[:2] == inputs["input_ids"].shape
        chosen = torch.tensor([[0, 3], [2, 1], [3, 5]])
        scores = model.score(hidden[chosen[:, 0], chosen[:, 1]])
    torch.testing.assert_close(scores, logits[chosen[:, 0], chosen[:, 1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make_base", [gemma, cohere, granite, bart])
def test_what_the_base_does_to_its_logits_is_kept(make_base) -> None:
    torch.manual_seed(0)
    model = AdaptedModel(make_base())
    model.add("a", make("lora", rank=2), seed=0)
    disturb(model, "a")
    inputs = batch()
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    bare = model.base.get_output_embeddings()
    with torch.no_grad():
        logits = model(**inputs, adapters="a").logits
        hidden = model.hidden(**inputs, adapters="a")
        assert not torch.allclose(bare(hidden), logits, atol=1e-3), "the base does nothing to them"
        torch.testing.assert_close(model.score(hidden[1]), logits[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make_base", [gemma, cohere])
def test_a_changed_head_is_used(make_base) -> None:
    model = AdaptedModel(make_base())
    model.add("a", make("lora", rank=2, targets=("lm_head",)), seed=0)
    disturb(model, "a")
    inputs = batch()
    with torch.no_grad():
        logits = model(**inputs, adapters="a").logits
        scores = model.score(model.hidden(**inputs, adapters="a")[2])
    torch.testing.assert_close(scores, logits[2], atol=1e-5, rtol=1e-5)


def test_a_head_that_one_of_several_adapters_changes_is_refused() -> None:
    model = AdaptedModel(base("llama"))
    model.add("a", make("lora", targets=("lm_head",)))
    model.add("b", make("lora"))
    hidden = model.hidden(**batch(), adapters=["a", "b", None, "b"])
    with pytest.raises(GraftuneError, match=r"share a head[\s\S]*'a' at lm_head"):
        model.score(hidden[0])


def test_a_base_without_a_vocabulary_says_so() -> None:
    model = AdaptedModel(base("bert", classifier=True))
    with pytest.raises(GraftuneError, match="no output head"):
        model.hidden(**batch())


@pytest.mark.parametrize("family", DECODERS)
def test_only_what_is_asked_for_is_computed(family: str) -> None:
    model = AdaptedModel(base(family))
    shapes = []
    model.head.module.register_forward_hook(lambda m, args, output: shapes.append(output.shape))
    model.score(model.hidden(**batch())[:2, 3])
    assert [shape[:-1].numel() for shape in shapes] == [0, 2]
