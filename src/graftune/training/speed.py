"""What makes a step fast on the machine at hand, chosen aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graftune.config.recipe import Recipe
from graftune.model import kernels
from graftune.model.adapted import AdaptedModel
from graftune.training.allocator import keep_freed_memory


@contextmanager
def fast(model: AdaptedModel, recipe: Recipe, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block the base computes by the kernels that fit it, and freed memory is kept for the next step."""
    if model.device.type == "cpu":
        keep_freed_memory()
    if recipe.gradient_checkpointing:
        model.base.gradient_checkpointing_enable({"use_reentrant": False})
        model.train(model.training)
    try:
        with kernels.fast(model.base, recipe.products) as used:
            if "linear" in used:
                say("fp32 products by oneDNN (--set products=torch for torch's own choice)")
            yield
    finally:
        if recipe.gradient_checkpointing:
            model.base.gradient_checkpointing_disable()
