"""RMSNorm with a frozen weight: one float32 copy of the input less in memory, and fewer passes over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graftune.model.override import forwards_replaced


class _RMSNorm(torch.autograd.Function):
    """y = w ⊙ x / √(mean x² + ε); backward: r (g w - x̂ mean(g w ⊙ x̂)), r = 1/√(…), x̂ = x r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)  # (…, 1)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        # Multiplied in float32 and rounded once, without a float32 copy of x.
        return torch.mul(x, inverse, out=torch.empty_like(x)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        # LayerNorm's own backward at mean zero takes r mean(g w) away, which has no place here.
        wide = weight.float()
        centred: Tensor = torch.ops.aten.native_layer_norm_backward(
            gradients[0].contiguous(),
            x,
            [x.shape[-1]],
            torch.zeros_like(inverse),
            inverse,
            wide,
            None,
            [True, False, False],
        )[0]
        mean = (gradients[0] @ weight)[..., None].float() / x.shape[-1]
        return centred.add_(mean.mul_(inverse)), None, None


def _forward(module: Any, x: Tensor) -> Tensor:
    if module.weight.requires_grad or module.weight.dtype != x.dtype:  # a trained copy stands in its place
        return type(module).forward(module, x)
    normed: Tensor = _RMSNorm.apply(x, module.weight, module.variance_epsilon)
    return normed


def _fits(module: nn.Module) -> bool:
    """Whether a module is this function: found by trying it, since every family has a class of its own."""
    weight = getattr(module, "weight", None)
    if not hasattr(module, "variance_epsilon") or not isinstance(weight, Tensor) or weight.dim() != 1:
        return False
    x = torch.linspace(-2, 3, weight.shape[0], device=weight.device, dtype=weight.dtype)[None]
    with torch.no_grad():
        return torch.allclose(type(module).forward(module, x), _RMSNorm.apply(x, weight, module.variance_epsilon))


@contextmanager
def replaced(base: nn.Module) -> Iterator[bool]:
    """Within the block RMSNorms with frozen weights are this one; yields whether there is any."""
    found = [module for module in base.modules() if _fits(module)]
    with forwards_replaced({module: partial(_forward, module) for module in found}):
        yield bool(found)
