"""Products: the linear maps of a base through the fastest matrix product of the processor.

On the CPU, torch multiplies fp32 matrices with MKL, which takes a slow path on processors that are not Intel's;
oneDNN, which torch carries as well, does not. In bf16 torch already chooses oneDNN.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graftune.errors import unknown
from graftune.model.layers import is_linear, is_quantized, weight_of
from graftune.model.override import forwards_replaced

PRODUCTS = ("auto", "onednn", "torch")


@cache
def fastest() -> str:
    """ "onednn" where torch would multiply fp32 by MKL on a processor that is not Intel's, else "torch"."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return "torch"
    cpuinfo = Path("/proc/cpuinfo")
    vendor = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    return "torch" if "GenuineIntel" in vendor else "onednn"


def chosen(name: str) -> str:
    """The product behind a choice. Raises GraftuneError for one that is not there."""
    if name not in PRODUCTS:
        raise unknown("product", name, PRODUCTS)
    return fastest() if name == "auto" else name


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by oneDNN: x (n, d_in), weight (d_out, d_in), fp32, no gradient."""
    if not x.numel() or not weight.numel():
        return nn.functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b with all three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        flat = x.reshape(-1, x.shape[-1])
        return multiply(flat, weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])  # (n, d_out)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        back = multiply(gradient, weight.T).view(*gradients[0].shape[:-1], weight.shape[1]) if for_x else None
        own = multiply(gradient.T, x.reshape(-1, x.shape[-1]).T) if for_weight else None  # (d_out, d_in)
        return back, own, gradient.sum(0) if for_bias else None


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    weight = weight_of(module)
    if weight.dtype != torch.float32 or x.dtype != torch.float32:
        return type(module).forward(module, x)
    product: Tensor = _Linear.apply(x, weight, module.bias)
    return product


def _plain(weight: Tensor) -> bool:
    """Whether a weight is fp32 on the CPU, and not quantized in the guise of it."""
    return weight.dtype == torch.float32 and weight.is_cpu and not is_quantized(weight)


@contextmanager
def replaced(base: nn.Module, products: str = "auto") -> Iterator[bool]:
    """Within the block, the fp32 linear maps of ``base`` on the CPU multiply by oneDNN, if that is the choice.

    Yields whether any does.
    """
    found: list[nn.Module] = []
    if chosen(products) == "onednn":
        linears = [module for module in base.modules() if is_linear(module)]
        found = [m for m in linears if _plain(weight_of(m))]
    with forwards_replaced({module: partial(_forward, module) for module in found}):
        yield bool(found)
