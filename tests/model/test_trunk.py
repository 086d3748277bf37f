"""The frozen layers below the lowest trained one, run by themselves, and left out."""

from __future__ import annotations

import pytest
import torch

from families import FAMILIES, base, batch
from graftune.methods.method import make
from graftune.model.adapted import AdaptedModel
from graftune.model.trunk import Trunk, lowest
from methods_under_test import METHODS, disturb

UPPER = {
    "lora": make("lora", rank=3, last=2),
    "houlsby": make("houlsby", bottleneck=4, last=1),
    "freeze": make("freeze", last=1),
    "final-norm": make("freeze", last=0, names=(r"ln_f|model\.norm|final_norm|layer\.2\.output\.LayerNorm",)),
}
DEPTH = {"lora": 1, "houlsby": 2, "freeze": 2, "final-norm": 2}


@pytest.mark.parametrize("method", UPPER)
@pytest.mark.parametrize("family", FAMILIES)
def test_depth_is_that_of_the_lowest_trained_part(family: str, method: str) -> None:
    model = AdaptedModel(base(family))
    model.add("a", UPPER[method])
    assert lowest(model, "a") == DEPTH[method]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("freeze", "freeze-first")])
@pytest.mark.parametrize("family", FAMILIES)
def test_methods_that_reach_the_first_layer_have_no_frozen_trunk(family: str, method: str) -> None:
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method])
    assert lowest(model, "a") == 0


def test_a_trained_embedding_lies_below_all_layers() -> None:
    model = AdaptedModel(base("gpt2"))
    model.add("a", make("freeze", last=0, names=("wte",)))  # tied to the head
    assert lowest(model, "a") == 0


@pytest.mark.parametrize("method", UPPER)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_standing_in_changes_neither_outputs_nor_gradients(family: str, left: bool, method: str) -> None:
    model = AdaptedModel(base(family)).double().train()
    model.add("a", UPPER[method], seed=0)
    model.double()
    disturb(model, "a")
    inputs = batch(left=left)
    trunk = Trunk(model, lowest(model, "a"))
    real = inputs["attention_mask"].bool()
    states = trunk(inputs).masked_fill(~real[..., None], 0)  # nothing is kept of padding

    def run() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        model.zero_grad()
        logits = model(**inputs, adapters="a").logits[real]
        logits.square().sum().backward()
        return logits.detach(), [p.grad for p in model.parameters_of("a")]

    whole, gradients = run()
    with trunk.replaced(states):
        upper, own = run()
    torch.testing.assert_close(upper, whole, atol=1e-11, rtol=1e-9)
    for mine, theirs in zip(own, gradients, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-8)
    again, _ = run()
    assert torch.equal(again, whole)
