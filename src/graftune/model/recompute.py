"""Gradient checkpointing: layers of the base that run again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_layers import GradientCheckpointingLayer

from graftune.errors import GraftuneError


def checkpointed(base: nn.Module) -> Iterator[nn.Module]:
    """The base's layers that recompute their activations in the backward pass."""
    for module in base.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            yield module


def recompute_without_dropout(layer: nn.Module) -> list[RemovableHandle]:
    """Let a layer of a base in evaluation mode recompute, until the handles are removed.

    It does so in training mode only, in which some layers (OPT, BART) drop activations by themselves: so it is in
    that mode when it is called, and not while it runs.
    """

    def rest(module: nn.Module, args: Any) -> None:
        module.training = False

    def wake(module: nn.Module, args: Any, output: Any) -> None:
        module.training = True

    layer.training = True
    return [layer.register_forward_pre_hook(rest), layer.register_forward_hook(wake, always_call=True)]


def refuse_reentrant(layers: list[nn.Module]) -> None:
    """Reentrant checkpointing gives no gradient to what enters a layer beside its input, as our parts do."""
    for layer in layers:
        function = layer._gradient_checkpointing_func
        if isinstance(function, partial) and function.keywords.get("use_reentrant") is not False:
            raise GraftuneError(
                "adapters do not train under reentrant gradient checkpointing",
                received=f"use_reentrant={function.keywords.get('use_reentrant')}",
                expected="use_reentrant=False, the default of Transformers",
                do='base.gradient_checkpointing_enable({"use_reentrant": False})',
            )
