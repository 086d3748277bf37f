"""Gradient checkpointing: layers of the base that run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from graftune.errors import GraftuneError


def checkpointed(base: nn.Module) -> Iterator[nn.Module]:
    """The base's layers that recompute their activations in the backward pass."""
    for module in base.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            yield module


class RecomputeWithoutDropout:
    """Lets a layer of a base in evaluation mode recompute, until it is removed.

    A layer does so in training mode only, in which some (OPT, BART) drop activations by themselves: so it is in that
    mode when it decides, and not while it runs, the first time and again.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.checkpoint = layer, layer._gradient_checkpointing_func
        layer._gradient_checkpointing_func = self  # type: ignore[assignment]
        layer.training = True

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """As Transformers calls it: ``function`` is the layer's own forward."""

        def resting(*given: Any) -> Any:
            self.layer.training = False
            try:
                return function(*given)
            finally:
                self.layer.training = True

        return self.checkpoint(resting, *args)  # type: ignore[operator]

    def remove(self) -> None:
        """Leave the layer as it was."""
        self.layer._gradient_checkpointing_func = self.checkpoint


def refuse_reentrant(layers: list[nn.Module]) -> None:
    """Reentrant checkpointing gives no gradient to what enters a layer beside its input, as our parts do."""
    for layer in layers:
        function = layer._gradient_checkpointing_func
        if isinstance(function, RecomputeWithoutDropout):
            function = function.checkpoint
        if isinstance(function, partial) and function.keywords.get("use_reentrant") is not False:
            raise GraftuneError(
                "adapters do not train under reentrant gradient checkpointing",
                received=f"use_reentrant={function.keywords.get('use_reentrant')}",
                expected="use_reentrant=False, the default of Transformers",
                do='base.gradient_checkpointing_enable({"use_reentrant": False})',
            )
