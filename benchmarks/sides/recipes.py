"""The recipe that both sides of a whole training are given, as one argument."""

from __future__ import annotations

import json
from typing import Any

from graftune.config import recipe as recipes
from graftune.config.recipe import Recipe
from graftune.methods.lora import LoRA
from graftune.tasks import registry
from graftune.tasks.task import Task

MIN_STEPS = 5  # below, no step is left to time


def lora(*targets: str) -> dict[str, Any]:
    """The section for LoRA of rank 8 and α 32 on modules of these names, which mean the same to both sides."""
    return {"rank": 8, "alpha": 32, "targets": list(targets)}


def text(**keys: Any) -> str:
    """Keys of a recipe as one argument; the curve is evaluated at its end alone."""
    return json.dumps({**keys, "eval_every": keys["max_steps"]}, default=str)


def parsed(text: str) -> Recipe:
    """The recipe behind an argument."""
    return recipes.load(None, json.loads(text))


def method_of(recipe: Recipe) -> LoRA:
    """The recipe's LoRA."""
    return LoRA(**recipe.section("lora"))


def task_of(recipe: Recipe) -> Task:
    """The recipe's task."""
    return registry.make(recipe.task, **recipe.section(recipe.task))
