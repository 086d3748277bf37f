"""Plain calls: the base called by itself, past the adapted model, is run as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from graftune.model.attach import Handle
from graftune.model.routing import Routing


def kept_plain(base: PreTrainedModel, routing: Routing) -> Iterator[Handle]:
    """Register hooks by which no adapter takes part in a direct call of the base, its trunk or its encoder.

    The routing of the adapted model's last call is there again after it: its layers may be recomputed later.
    """
    kept: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not routing.running:
            kept.append(routing.names)
            routing.set(None, 0, ())

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not routing.running and kept:
            names = kept.pop()
            routing.set(names, len(names), [name for name in names if name is not None])

    entrances: dict[int, nn.Module] = {id(module): module for module in (base, base.base_model)}
    if base.config.is_encoder_decoder:
        entrances[id(base.get_encoder())] = base.get_encoder()
    for module in entrances.values():
        yield module.register_forward_pre_hook(before, prepend=True)
        yield module.register_forward_hook(after, always_call=True)
