"""What makes a step fast on the machine at hand, chosen aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from graftune.model import products
from graftune.model.adapted import AdaptedModel
from graftune.training.allocator import keep_freed_memory
from graftune.training.recipe import Recipe


@contextmanager
def fast(model: AdaptedModel, recipe: Recipe, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block, the base multiplies by the product that the recipe chose, and freed memory is kept."""
    if recipe.gradient_checkpointing:
        model.base.gradient_checkpointing_enable({"use_reentrant": False})
        model.train(model.training)
    on_cpu = model.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    try:
        if on_cpu and model.base.dtype == torch.float32 and products.chosen(recipe.products) == "onednn":
            say("fp32 products by oneDNN (--set products=torch for torch's own choice)")
            with products.onednn(model.base):
                yield
        else:
            yield
    finally:
        if recipe.gradient_checkpointing:
            model.base.gradient_checkpointing_disable()
