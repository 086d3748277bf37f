"""Every method on every family: it fits or says why not, and its rows are as if alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from all_families import FAMILIES, Inputs
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, disturb, in_training

TOKENS = ("prompt", "prompt-random", "p-tuning", "p-tuning-mlp")
COPIES = ("freeze", "freeze-first", "full")
IMAGES = [name for name, family in FAMILIES.items() if family.kind == "image"]
PAIRS = [name for name, family in FAMILIES.items() if family.kind == "encoder-decoder"]

#: (family, method) -> what the refusal says, when the adapter is made.
REFUSED: dict[tuple[str, str], str] = {
    **{(family, method): "no table of token embeddings" for family in IMAGES for method in TOKENS},
    **{(family, "prefix-shifted"): "positions be shifted" for family in (*IMAGES, *PAIRS)},
    **{("mixtral", method): "unknown target 'down'" for method in ("dora", "ia3")},  # experts are no linear maps
    **{("mixtral", method): "no mlp sub-layer" for method in ("houlsby", "pfeiffer", "parallel")},
}
#: (family, method) -> what is said when some rows of a batch use the adapter and others do not.
UNSHARED: dict[tuple[str, str], str] = {
    **{("mixtral", method): "cannot share a batch" for method in COPIES},  # experts take tokens, not rows
    ("t5", "full"): "cannot share a batch",  # biases by distance belong to no row
    ("t5", "freeze-first"): "cannot share a batch",
    ("marian", "full"): "cannot share a batch",  # a table of positions that no row owns
    **{("swin", method): "cannot share a batch" for method in COPIES},
}
#: Family -> the parameter that no input moves: it is for masked images, or a fixed table of sines.
IDLE = {"dinov2": "mask_token", "marian": "embed_positions"}
#: A key bias shifts all scores of a query alike, which softmax cancels.
CANCELLED = ("key/=.copies.bias", "k_proj/=.copies.bias", "k_lin/=.copies.bias")
CELLS = [pytest.param(f, m, id=f"{f}-{m}") for f in FAMILIES for m in METHODS]


def output_of(model: AdaptedModel, inputs: Inputs, adapters: object) -> Tensor:
    output = model(**inputs, adapters=adapters)
    found: Tensor = output.image_embeds if "image_embeds" in output else output.logits
    return found


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_a_method_fits_and_its_rows_are_as_if_alone(family: str, method: str) -> None:
    kind = FAMILIES[family]
    model = AdaptedModel(kind.base())
    if (family, method) in REFUSED:
        with pytest.raises(GraftuneError, match=REFUSED[family, method]):
            model.add("a", METHODS[method], seed=0)
        return
    for name, seed in (("a", 0), ("b", 3)):
        model.add(name, METHODS[method], seed=seed)
        disturb(model, name, seed=7 + seed)
    adapters = ["a", None, "b", "a"]
    if (family, method) in UNSHARED:
        with pytest.raises(GraftuneError, match=UNSHARED[family, method]):
            output_of(model, kind.inputs(), adapters)
        adapters = ["a"] * 4
    with torch.no_grad():
        for left in (False, True):
            inputs = kind.inputs(left=left)
            together = output_of(model, inputs, adapters)
            for row, name in enumerate(adapters):
                close(kind.of_row(together, inputs, row), output_of(model, kind.alone(inputs, row), name)[0])
        changed, plain = (output_of(model, inputs, name) for name in ("a", None))
    assert not torch.allclose(changed, plain, atol=1e-4), "the adapter does nothing"


@pytest.mark.parametrize(("family", "method"), [c for c in CELLS if tuple(c.values) not in REFUSED])
def test_every_parameter_gets_a_gradient_that_checkpointing_keeps(family: str, method: str) -> None:
    kind = FAMILIES[family]
    gradients = []
    for checkpointing in (False, True):
        model = in_training(kind.base(), method, checkpointing=checkpointing)
        output_of(model, kind.inputs(), "a").pow(2).mean().backward()
        gradients.append({n: p.grad for n, p in model.adapter("a").named_parameters()})
    for name, gradient in gradients[0].items():
        recomputed = gradients[1][name]
        if (family in IDLE and IDLE[family] in name) or name.endswith(CANCELLED):
            continue
        assert gradient is not None, name
        assert recomputed is not None, name
        assert gradient.abs().max() > 0, name
        close(gradient, recomputed)
