"""The most that this machine multiplies: operations a second of the best fp32 and the best bf16 product."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from graftune.model.kernels.linear import multiply
from sides.figures import report

SIZES = ((512, 768, 3072), (512, 3072, 768), (1024, 1024, 1024))  # rows, inputs, outputs
CALLS, TRIES = 5, 8


def rate(product: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, size: tuple[int, int, int]) -> float:
    """Operations a second of x Wᵀ: the best of some tries, each the mean of a few calls."""
    rows, inputs, outputs = size
    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    times = []
    for _ in range(TRIES):
        began = time.perf_counter()
        for _ in range(CALLS):
            product(x, weight)
        times.append((time.perf_counter() - began) / CALLS)
    return 2 * rows * inputs * outputs / min(times)


def main() -> None:
    """Products by torch's own choice (MKL in fp32, oneDNN in bf16) and, in fp32, by oneDNN."""
    torch.manual_seed(0)
    with torch.no_grad():
        report(
            fp32=max(rate(product, torch.float32, size) for product in (linear, multiply) for size in SIZES),
            bf16=max(rate(linear, torch.bfloat16, size) for size in SIZES),
        )


if __name__ == "__main__":
    main()
