"""Trunk: the frozen layers below the lowest trained one, whose activations never change during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.model.override import forwards_replaced


class _Reached(Exception):
    """The states that enter the first trained layer are there; nothing above them is needed."""


def lowest(model: AdaptedModel, name: str) -> int:
    """The lowest layer that training this adapter changes; 0 where something below the layers changes too."""
    adapter = model.adapter(name)
    # Shifted positions reach every layer, and an encoder's output every layer of its decoder.
    if adapter.offset or model.config.is_encoder_decoder or model.base_dropout:
        return 0
    depths = [model.anatomy.depth(site.path) for site in adapter.sites.values()]
    return min([*depths, len(model.anatomy.layers) - 1])


class Trunk:
    """The layers below layer ``depth`` of one base, as a function of its own."""

    def __init__(self, model: AdaptedModel, depth: int) -> None:
        modules = model.anatomy.modules
        self.model, self.depth = model, depth
        self.below: list[nn.Module] = [modules[layer.path] for layer in model.anatomy.layers[:depth]]
        self.first: nn.Module = modules[model.anatomy.layers[depth].path]
        # A head looks at what the whole base does with it; that cannot be seen while layers stand still.
        self.head = None if model.base.get_output_embeddings() is None else model.head

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """The states (B, T, d) that enter layer ``depth``; nothing above it runs.

        Raises GraftuneError where the layers below hand on more than these states.
        """
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        def check(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                raise GraftuneError(
                    "the activations below the trained layers cannot be kept on this base",
                    received=f"layers that return {type(output).__name__}",
                    expected="layers that return one tensor of hidden states",
                    do="compute them each time: cache_trunk=false",
                )

        handles = [
            self.first.register_forward_pre_hook(stop, with_kwargs=True),
            self.below[-1].register_forward_hook(check),
        ]
        try:
            self.model(adapters=None, **inputs)
        except _Reached:
            return seen[0]
        finally:
            for handle in handles:
                handle.remove()
        raise RuntimeError("the base ran without its layers")

    @contextmanager
    def replaced(self, states: Tensor) -> Iterator[None]:
        """Within the block the layers below compute nothing and ``states`` (B, T, d) enter layer ``depth``."""

        def put(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        handle = self.first.register_forward_pre_hook(put, with_kwargs=True)
        try:
            with forwards_replaced(dict.fromkeys(self.below, lambda hidden_states, *args, **kwargs: hidden_states)):
                yield
        finally:
            handle.remove()
