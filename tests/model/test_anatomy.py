"""What the dry run finds, where the order of calls alone would not tell."""

from __future__ import annotations

import pytest
import torch
import transformers as t
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import families
from all_families import FAMILIES, output_of, shared
from graftune.errors import GraftuneError
from graftune.methods import LoRA, PrefixTuning
from graftune.model.adapted import AdaptedModel


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "deberta"])
def test_queries_keys_and_values_are_told_apart(family: str) -> None:
    """Every family here names a map of one role by its first letter, whatever order it calls them in (YOLOS)."""
    with shared(family) as model:
        maps = [site for layer in model.anatomy.layers for site in layer.linears if site.role in tuple("qkv")]
        assert maps
        for site in maps:
            assert site.start is not None or site.path.rpartition(".")[2][0] == site.role, site


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe"])
def test_a_mixture_of_experts_has_sublayers_of_the_model_s_width(family: str) -> None:
    with shared(family) as model:
        found = [site.path for site in model.anatomy.sublayers("mlp")]
        assert found == [f"model.layers.{n}.mlp" for n in range(3)]
        assert {site.width for site in model.anatomy.sublayers("mlp")} == {32}


def test_a_layer_that_runs_several_times_is_one_layer() -> None:
    with shared("albert") as model:
        (layer,) = model.anatomy.layers
        assert [site.role for site in layer.linears] == ["q", "k", "v", "o", "up", "down"]
        assert len(layer.attentions) == 1
        assert [site.role for site in layer.sublayers] == ["attention", "mlp"]


def test_attention_that_takes_no_rows_refuses_those_alone() -> None:
    """An implementation that is not ours to extend: found all the same, and used by what needs no rows."""
    AttentionInterface.register("of_the_user", sdpa_attention_forward)
    AttentionMaskInterface.register("of_the_user", sdpa_mask)
    base = families.base("llama")
    inputs = families.batch()
    expected = output_of(base, inputs)
    base.set_attn_implementation("of_the_user")
    model = AdaptedModel(base)
    assert base.config._attn_implementation == "of_the_user"
    model.add("a", LoRA(rank=2))
    with pytest.raises(GraftuneError, match="cannot take key/value rows"):
        model.add("b", PrefixTuning(length=2))
    assert list(model.adapters) == ["a"]
    with torch.no_grad():
        torch.testing.assert_close(output_of(model, inputs, adapters="a"), expected)
    assert base.config._attn_implementation == "of_the_user"


def test_a_base_of_several_inputs_is_refused_as_a_whole() -> None:
    config = t.CLIPConfig(text_config=FAMILIES["clip-text"].options, vision_config=FAMILIES["clip-vision"].options)
    with pytest.raises(GraftuneError, match="does not run on ids or pixels alone"):
        AdaptedModel(t.CLIPModel(config))
