"""Graftune's own loop on the same E2E rows: SHAPE METHOD PRECISION TRAIN STEPS."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import graftune as gt
from graftune.config.recipe import Recipe
from graftune.methods.method import Method
from graftune.training.budget import budget_of
from graftune.training.loop import fit
from graftune.training.speed import fast
from sides import shapes
from sides.figures import WARM, Clock, run


def method_of(shape: str, method: str) -> Method:
    """What the other side trains: LoRA of rank 8, or a prefix of 20 rows."""
    if method == "prefix":
        return gt.PrefixTuning(length=20, reparameterize=False)
    return gt.LoRA(rank=8, alpha=32, targets=("c_attn",) if shape.startswith("gpt2") else ("q", "v"))


def main(shape: str, method: str, precision: str, train: str, steps: str, *options: str) -> None:
    """Time ``steps`` steps of 16 rows after the warm-up; ``options`` are further keys of a recipe, key=value."""
    total = int(steps) + WARM
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = gt.AdaptedModel(shapes.base(shape, dtype))
    features = shapes.rows(Path(train), 16 * total)
    recipe = Recipe(batch_size=16, max_steps=total, lr=1e-4, **dict(option.split("=") for option in options))
    chosen = method_of(shape, method)
    model.add("a", chosen, seed=0)
    budget = budget_of(recipe, chosen, len(features), model)
    clock = Clock()

    def train_all() -> list[float]:
        with fast(model, recipe, lambda _: None):
            done = fit(model, "a", shapes.task(model.config), features, [], budget, watch=lambda _: clock.tick())
        return [point["loss"] for point in done.curve]

    run(train_all, clock)


if __name__ == "__main__":
    main(*sys.argv[1:])
