"""Budget: how long and how fast one method is trained, resolved from a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from graftune.config.recipe import Recipe
from graftune.methods.method import Method
from graftune.methods.rates import Conditions, head_rate
from graftune.model.adapted import AdaptedModel
from graftune.model.adapter import parameters_of

DEFAULT_EPOCHS = 3.0
WORK = 512 * 768**2  # of a micro-batch on a CPU: tokens · width²
POINTS = 8  # evaluations on the curve of a run, where the recipe does not say how often


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train.

    ``rates`` are factors on ``lr`` by a pattern in a parameter's name; those of new heads make their own rate of it.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    clip: float
    seed: int
    eval_every: int
    checkpoint_every: int
    schedule: str = "linear"
    rates: Mapping[str, float] = field(default_factory=dict)
    smoothing: float = 0.0
    micro_tokens: int | None = None
    patience: int | None = None
    keep_best: bool = False
    trunk_cache: tuple[float, float] | None = None
    """Bounds in GiB of what is kept of the frozen layers, in memory and on disk."""

    @property
    def watches_best(self) -> bool:
        """Whether the best point of the curve is remembered."""
        return self.keep_best or self.patience is not None

    def rate(self, step: int) -> float:
        """The learning rate at a step that counts from 0: linear warm-up to ``lr``, then as the schedule says.

        linear: to zero in equal steps; cosine: (1 + cos πt)/2 for t from 0 at the peak to 1 at the end; constant.
        """
        rising = max(1, round(self.warmup * self.steps))
        if step + 1 < rising:
            return self.lr * (step + 1) / rising
        left = (self.steps - step) / max(1, self.steps - rising + 1)  # 1 at the peak, 0 behind the last step
        share = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[self.schedule]
        return self.lr * min(1.0, share)


def steps_of(recipe: Recipe, rows: int) -> int:
    """How many steps are taken on that many training rows."""
    per_epoch = -(-rows // recipe.batch_size)
    return recipe.max_steps or max(1, round((recipe.epochs or DEFAULT_EPOCHS) * per_epoch))


def points_every(recipe: Recipe, steps: int) -> int:
    """How many steps lie between two points of the curve."""
    return recipe.eval_every or max(1, steps // POINTS)


def budget_of(recipe: Recipe, method: Method, rows: int, model: AdaptedModel) -> Budget:
    """Steps and rates for a method on that many training rows, on the base of ``model``."""
    width = model.anatomy.width
    (adapter,) = map(model.adapter, model.adapters)
    steps = steps_of(recipe, rows)
    every = points_every(recipe, steps)
    on = Conditions(model.anatomy.kind, width, recipe.batch_size, steps, model.anatomy.has_deep_head)
    lr = recipe.learning_rate(method.preset, method.usual_rate(on))
    head = recipe.head_rate(method.preset, head_rate(on))
    heads = dict.fromkeys(map(parameters_of, adapter.heads), head / lr)
    return Budget(
        steps=steps if method.trainable else 0,
        batch_size=recipe.batch_size,
        lr=lr,
        warmup=recipe.warmup,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        seed=recipe.seed,
        eval_every=every,
        checkpoint_every=recipe.checkpoint_every or every,
        schedule=recipe.schedule,
        rates={**heads, **method.rates, **recipe.rates_of(method.preset)},
        smoothing=recipe.label_smoothing,
        micro_tokens=recipe.micro_tokens or _micro_tokens(model.device.type, width),
        patience=recipe.patience,
        keep_best=recipe.keep_best,
        trunk_cache=(recipe.cache_memory, recipe.cache_disk) if recipe.cache_trunk else None,
    )


def _micro_tokens(device: str, width: int) -> int:
    """Tokens of a micro-batch that use the device well: on a CPU as few as keep its products busy."""
    if device != "cpu":
        return 16_384
    return max(512, min(WORK // width**2, 4096))
