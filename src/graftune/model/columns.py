"""Columns: more of them in the sequence that a layer works on, put in front of it and taken out behind it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.model import attention
from graftune.model.anatomy import Anatomy
from graftune.model.trace import dummy_inputs
from graftune.parts import LayerSite

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def states_of(args: Args, kwargs: Kwargs) -> Tensor:
    """The hidden states (B, T, d) among a layer's arguments."""
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def inserted(args: Args, kwargs: Kwargs, rows: Tensor) -> tuple[Args, Kwargs]:
    """A layer's arguments with ``rows`` (B, n, d) behind the first column of its hidden states."""
    states = states_of(args, kwargs)
    wide = torch.cat([states[:, :1], rows, states[:, 1:]], dim=1)
    return ((wide, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": wide})


def taken_out(output: Any, columns: int) -> tuple[Any, Tensor]:
    """A layer's output, a tensor or a tuple that starts with one, without these columns; and they, (B, n, d)."""
    states = output if isinstance(output, Tensor) else output[0]
    rows, behind = states[:, 1 : 1 + columns], states[:, 1 + columns :]
    narrow = torch.cat([states[:, :1], behind], dim=1)
    return (narrow if isinstance(output, Tensor) else (narrow, *output[1:])), rows


def layer_sites(anatomy: Anatomy) -> list[LayerSite]:
    """The inputs of all layers, if these take one column more, which is tried with a run of the base.

    Raises GraftuneError where they do not: a layer cuts its columns into windows, say, or has a bias for each.
    """
    base, modules = anatomy.base, anatomy.modules
    sites: list[LayerSite] = []
    shapes: list[tuple[int, ...]] = []  # of the sequences in the layer that runs, and of all that its attention sees
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def enter(path: str, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        states = states_of(args, kwargs)
        sites.append(LayerSite(path, states.shape[-1], len(sites)))
        shapes.append((len(states), states.shape[1] + 1))
        return inserted(args, kwargs, states.new_zeros(len(states), 1, states.shape[-1]))

    def leave(module: nn.Module, args: Args, output: Any) -> Any:
        return taken_out(output, 1)[0]

    def probe(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes.extend((len(heads), heads.shape[2]) for heads in (query, key))

    def refusal(reason: str) -> GraftuneError:
        return GraftuneError(
            "this base has no sequence of patches that prompts can join",
            received=f"{type(base).__name__}, where {reason}",
            expected="layers that all attend over one sequence, of any length",
            do="use rows for the keys and values instead (PTuningV2), or LoRA",
        )

    for layer in anatomy.layers:
        module = modules[layer.path]
        handles.append(module.register_forward_pre_hook(partial(enter, layer.path), with_kwargs=True))
        handles.append(module.register_forward_hook(leave, prepend=True))
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), attention.probing(base, probe):
            try:
                base(**dummy_inputs(base))
            except Exception as error:  # a layer may fail in any way on a sequence that it is not made for
                where = sites[-1].path if sites else "the base"
                raise refusal(f"{where} fails on one column more") from error
    finally:
        base.train(training)
        for handle in handles:
            handle.remove()
    if len(set(shapes)) != 1 or [site.path for site in sites] != [layer.path for layer in anatomy.layers]:
        raise refusal(f"layers attend over sequences of several shapes: {sorted(set(shapes))}")
    return sites
