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
from graftune.parts import LinearSite, LowRank, ParameterCopy, Scale


def merged(base: PreTrainedModel, anatomy: Anatomy, adapter: Adapter) -> PreTrainedModel:
    """A plain Transformers model that computes what base and adapter compute together.

    LoRA and DoRA: W'; IA3: W' = diag(l) W or W diag(l); copies: their values. Raises GraftuneError for parts
    that no weights can express, and for a quantized base.
    """
    for key, part in adapter.parts.items():
        if not isinstance(part, LowRank | Scale | ParameterCopy):
            raise GraftuneError(
                "this adapter cannot be merged exactly",
                received=f"{type(part).__name__} of {type(adapter.method).__name__} at {adapter.sites[key].path}",
                expected="LoRA, DoRA, IA3, Freeze, full fine-tuning, or BitFit on a base that has biases",
                do="keep the adapter beside the base",
            )
        for name, parameter in anatomy.modules[adapter.sites[key].path].named_parameters(recurse=False):
            refuse_quantized("merging", f"{adapter.sites[key].path}.{name}", parameter)
    clone = copy.deepcopy(base)
    for module in clone.modules():  # hooks belong to the base they were registered on
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    attention.release(clone)
    modules = dict(clone.named_modules())
    with torch.no_grad():
        for key, part in adapter.parts.items():
            site = adapter.sites[key]
            module = modules[site.path]
            if isinstance(part, ParameterCopy):
                for name, value in part().items():
                    module._parameters[name].copy_(value)
                continue
            assert isinstance(site, LinearSite)
            weight = weight_of(module)
            span = site.columns
            if isinstance(part, LowRank):
                weight[span] = part.merged(weight[span])
            elif isinstance(part, Scale):
                _scale(part, module, weight, span)
    return clone.eval()


def _scale(part: Scale, module: nn.Module, weight: torch.Tensor, span: slice | list[int]) -> None:
    if part.on == "input":
        weight.mul_(part.scale)
        return
    weight[span] *= part.scale[:, None]
    bias = module._parameters.get("bias")
    if bias is not None:
        bias[span] *= part.scale
