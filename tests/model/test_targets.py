"""Linear maps that a part cannot change: those that give several tensors, and those that nobody calls."""

from __future__ import annotations

import pytest
import torch
import transformers as t

from all_families import GROUPED, IMAGE
from families import base, batch, randomised
from graftune.errors import GraftuneError
from graftune.methods import LoRA
from graftune.model.adapted import AdaptedModel
from methods_under_test import disturb


def test_a_router_that_gives_several_tensors_is_left_out() -> None:
    config = t.PhimoeConfig(**GROUPED, num_local_experts=4)
    model = AdaptedModel(randomised(t.PhimoeForCausalLM, config))
    adapter = model.add("a", LoRA(rank=2, targets="all"), seed=0)
    assert not any("router" in site.path for site in adapter.sites.values())
    disturb(model, "a")
    with torch.no_grad():
        assert not torch.equal(model(**batch(), adapters="a").logits, model(**batch()).logits)
    with pytest.raises(GraftuneError, match=r"router would change(.|\n)*gives several tensors"):
        model.add("b", LoRA(rank=2, targets=("router",)))


def test_a_map_that_is_read_and_not_called_is_refused() -> None:
    """SigLIP's head hands the weight of its out_proj to a function."""
    model = AdaptedModel(randomised(t.SiglipVisionModel, t.SiglipVisionConfig(**IMAGE)))
    with pytest.raises(GraftuneError, match=r"head\.attention\.out_proj would change nothing(.|\n)*not called"):
        model.add("a", LoRA(rank=2, targets=("head.attention.out_proj",)))
    assert not model.adapters


def test_a_map_beside_the_path_of_the_data_is_refused() -> None:
    plain = base("bert")
    plain.bert.spare = torch.nn.Linear(32, 32)
    with pytest.raises(GraftuneError, match="spare would change nothing"):
        AdaptedModel(plain).add("a", LoRA(rank=2, targets=("spare",)))
