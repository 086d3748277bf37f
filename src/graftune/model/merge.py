"""Merging: an adapter folded into a copy of the base's weights, where that gives the same function."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model import attention
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.layers import refuse_quantized, weight_of
from graftune.model.ties import own, shared_parameters, ties, untie
from graftune.parts import LinearSite, LowRank, ParameterCopy, Scale

EXACT = LowRank | Scale | ParameterCopy


def is_exact(adapter: Adapter) -> bool:
    """Whether all of an adapter's parts can be folded into weights that compute the same."""
    return all(isinstance(part, EXACT) for part in adapter.parts.values())


def unhooked(base: PreTrainedModel) -> PreTrainedModel:
    """A copy of the base without hooks, which belong to the base they were registered on."""
    clone = copy.deepcopy(base)
    for module in clone.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    attention.release(clone)
    return clone


def merged(base: PreTrainedModel, anatomy: Anatomy, adapter: Adapter) -> PreTrainedModel:
    """A plain Transformers model that computes what base and adapter compute together.

    LoRA and DoRA: W'; IA3: W' = diag(l) W or W diag(l); copies: their values. Where W is tied to another module's
    weight, W' is a weight of its own, and the config of the copy says that nothing is tied. Raises GraftuneError for
    parts that no weights can express, for a quantized base, and for a tie that the base's config cannot undo.
    """
    for key, part in adapter.parts.items():
        if not isinstance(part, EXACT):
            raise GraftuneError(
                "this adapter cannot be merged exactly",
                received=f"{type(part).__name__} of {type(adapter.method).__name__} at {adapter.sites[key].path}",
                expected="LoRA, DoRA, IA3, Freeze, full fine-tuning, or BitFit on a base that has biases",
                do="keep the adapter beside the base",
            )
        for name, parameter in anatomy.modules[adapter.sites[key].path].named_parameters(recurse=False):
            refuse_quantized("merging", f"{adapter.sites[key].path}.{name}", parameter)
    clone = unhooked(base).eval()
    tied = ties(clone)
    modules = dict(clone.named_modules())
    with torch.no_grad():
        _copies(adapter, modules)
        shared = shared_parameters(clone)
        for key, part in adapter.parts.items():
            site = adapter.sites[key]
            if isinstance(site, LinearSite):
                _change(part, modules[site.path], site, shared)
        if ties(clone) != tied:
            untie(clone)
    return clone


def _copies(adapter: Adapter, modules: dict[str, nn.Module]) -> None:
    """Put trained copies in place; those that modules share stay shared."""
    made: dict[tuple[nn.Parameter, torch.dtype], nn.Parameter] = {}
    for key, part in adapter.parts.items():
        if not isinstance(part, ParameterCopy):
            continue
        module = modules[adapter.sites[key].path]
        for name, value in part().items():
            dtype = module._parameters[name].dtype  # type: ignore[union-attr]
            fresh = nn.Parameter(value.detach().to(dtype, copy=True), requires_grad=False)
            module._parameters[name] = made.setdefault((value, dtype), fresh)


def _change(part: nn.Module, module: nn.Module, site: LinearSite, shared: set[nn.Parameter]) -> None:
    """Fold a change of one linear map into its weight and bias; what other modules hold too, they keep."""
    for name in ("weight", "bias"):
        if module._parameters.get(name) in shared:
            own(module, name)
    weight, bias, span = weight_of(module), module._parameters.get("bias"), site.columns
    if isinstance(part, LowRank):
        weight[span] = part.merged(weight[span])
    elif isinstance(part, Scale) and part.on == "input":
        weight.mul_(part.scale)
    elif isinstance(part, Scale):
        weight[span] *= part.scale[:, None]
        if bias is not None:
            bias[span] *= part.scale
