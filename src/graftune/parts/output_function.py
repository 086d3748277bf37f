"""OutputFunction: h ← h + s·f(x) at the output of a sub-layer or of a linear map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Reads = Literal["output", "input", "residual"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Bottleneck(nn.Module):
    """s·(act(x W_d + b_d) W_u + b_u), W_d (d, m), W_u (m, d). x and result (B, T, d).

    ``reads`` says what x is: the sub-layer's "output" h (Houlsby), its "input" (parallel), or the
    "residual" stream with h added (Pfeiffer; through the pretrained LayerNorm in post-norm models).
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        *,
        activation: str,
        scale: float = 1.0,
        reads: Reads = "output",
        init: Literal["normal", "lora"] = "normal",
        std: float = 1e-3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.reads: Reads = reads
        self.scale = scale
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)
        if init == "lora":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)
        else:  # truncated at two standard deviations (Houlsby et al. 2019, section 3.6)
            nn.init.trunc_normal_(self.down.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.trunc_normal_(self.up.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.activation(self.down(x.to(self.down.weight.dtype))))
        return (self.scale * self.up(inner)).to(x.dtype)


class Bias(nn.Module):
    """A constant function: h ← h + b, b (d,) zero at the start. For linear maps that have no bias."""

    reads: Reads = "output"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.to(x.dtype).expand_as(x)
