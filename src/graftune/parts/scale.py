"""Scale: an activation times a trained vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """x ← l ⊙ x, l (d,) ones at the start. ``on`` says which side of the linear map is scaled."""

    def __init__(self, width: int, on: Literal["input", "output"]) -> None:
        super().__init__()
        self.on = on
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x.dtype)
