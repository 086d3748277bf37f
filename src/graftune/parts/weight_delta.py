"""WeightDelta: one linear map changed from W to W + ΔW."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """y ← y + s·B A x, A (r, d_in) Kaiming-uniform, B (d_out, r) zero. Hu et al. 2021, eq. 3."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = scale
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def delta(self) -> Tensor:
        """s·B A, (d_out, d_in)."""
        return self.scale * self.B @ self.A

    def update(self, x: Tensor) -> Tensor:
        """s·B A x for x (…, d_in)."""
        x = self.dropout(x.to(self.A.dtype))
        return nn.functional.linear(nn.functional.linear(x, self.A), self.scale * self.B)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The changed output for input x (…, d_in), output y (…, d_out), weight (d_out, d_in).

        Multiplied in the precision of the base: products of A and B kept in float32 would need a float32 copy of x.
        """
        low = nn.functional.linear(self.dropout(x), self.A.to(x.dtype)).flatten(0, -2)  # (n, r)
        high = (self.scale * self.B).to(y.dtype)
        return torch.addmm(y.flatten(0, -2), low.to(y.dtype), high.T).view_as(y)

    def merged(self, weight: Tensor) -> Tensor:
        """W + ΔW, (d_out, d_in)."""
        return weight + self.delta().to(weight.dtype)


class DecomposedLowRank(LowRank):
    """W' = m ⊙ (W + s·BA)/‖W + s·BA‖ (row norms, constant in the backward). Liu et al. 2024, eq. 5 and 4.3.

    m (d_out,) starts as the row norms of W, so that nothing changes at the start.
    """

    def __init__(
        self, inputs: int, outputs: int, rank: int, scale: float, dropout: float = 0.0, *, weight: Tensor
    ) -> None:
        super().__init__(inputs, outputs, rank, scale, dropout)
        self.magnitude = nn.Parameter(weight.detach().float().norm(dim=1).clone())

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        norm = (weight.to(self.A.dtype) + self.delta()).norm(dim=1).detach()
        plain = y if bias is None else y - bias
        turned = plain.to(self.A.dtype) + self.update(x)
        result = (self.magnitude / norm) * turned
        return (result if bias is None else result + bias).to(y.dtype)

    def merged(self, weight: Tensor) -> Tensor:
        direction = weight.to(self.A.dtype) + self.delta()
        return ((self.magnitude / direction.norm(dim=1))[:, None] * direction).to(weight.dtype)
