"""How far Graftune's gradient is from PEFT's on the same rows with the same adapter, in fp32: SHAPE METHOD TRAIN."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor

import graftune as gt
from graftune.config.recipe import Recipe
from graftune.tasks.features import Features
from graftune.training.budget import budget_of
from graftune.training.speed import fast
from graftune.training.step import Step
from sides import shapes
from sides.figures import report
from sides.step_peft import config
from sides.trainer import Collator, as_rows

ROWS, PAD = 16, 0
Gradients = dict[str, Tensor]


def disturb(model: Any) -> None:
    """Move LoRA's B away from its zeros, where the gradient of A vanishes; a prefix starts away from them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)


def theirs(model: Any, features: list[Features]) -> Gradients:
    """PEFT's gradient of the mean loss, by tensor."""
    model(**Collator(PAD)(as_rows(features))).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def ours(shape: str, folder: str, features: list[Features]) -> Gradients:
    """Graftune's gradient for the adapter in PEFT's folder, by tensor."""
    model = gt.AdaptedModel(shapes.base(shape))
    adapter = model.load("a", folder)
    recipe = Recipe(batch_size=ROWS, max_steps=1)
    step = Step(model, "a", shapes.task(model.config), budget_of(recipe, adapter.method, ROWS, model))
    model.train()
    with fast(model, recipe, lambda _: None):
        step.backward(features)
    return {name: p.grad for name, p in adapter.named_parameters()}


def pairs(theirs: Gradients, ours: Gradients) -> list[tuple[Tensor, Tensor]]:
    """Tensors that belong together: maps by name; PEFT keeps the prefixes of all layers side by side in one."""
    if len(theirs) == 1:
        (whole,) = theirs.values()
        return list(zip(whole.split([part.shape[1] for part in ours.values()], dim=1), ours.values(), strict=True))
    names = {re.sub(r"^base_model\.model\.|\.default\.weight$", "", name): name for name in theirs}
    own = {re.sub(r"\.([AB])$", r".lora_\1", n.removeprefix("parts.").replace("/", ".")): g for n, g in ours.items()}
    if own.keys() != names.keys():
        raise RuntimeError("the two sides have not the same tensors")
    return [(theirs[names[name]], own[name]) for name in own]


def main(shape: str, method: str, train: str) -> None:
    """The largest ‖g - g'‖/‖g‖ over the adapter's tensors, g PEFT's and g' ours."""
    features = shapes.rows(Path(train), ROWS)
    model = get_peft_model(shapes.base(shape), config(shape, method))
    disturb(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = pairs(theirs(model, features), ours(shape, folder, features))
    report(error=max(((a - b).norm() / a.norm()).item() for a, b in found), tensors=len(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
