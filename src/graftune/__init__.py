"""Graftune: every parameter-efficient fine-tuning method on one frozen transformer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftune.comparison.compare import compare as compare
    from graftune.errors import GraftuneError as GraftuneError
    from graftune.inference.predictor import Predictor as Predictor
    from graftune.inference.predictor import load as load
    from graftune.methods import *  # noqa: F403
    from graftune.model.adapted import AdaptedModel as AdaptedModel
    from graftune.training.run import train as train

__version__ = "0.1.0"

_HOMES = {
    "AdaptedModel": "graftune.model.adapted",
    "GraftuneError": "graftune.errors",
    "Predictor": "graftune.inference.predictor",
    "compare": "graftune.comparison.compare",
    "load": "graftune.inference.predictor",
    "train": "graftune.training.run",
}


def __getattr__(name: str) -> Any:
    # Public names load on first use: `graftune --help` must not wait for torch.
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return getattr(import_module(_HOMES.get(name, "graftune.methods")), name)
    except AttributeError:
        pass
    try:
        return import_module(f"graftune.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module 'graftune' has no attribute {name!r}") from None
