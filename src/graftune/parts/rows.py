"""Parts made of rows: embedding rows for virtual tokens, hidden rows for layers, key/value rows for attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """A table (length, width) that is a parameter of its own or made by a generator.

    ``generated`` is set by the adapter once per forward pass while its generator is alive.
    """

    def __init__(self, length: int, width: int, values: Tensor | None = None, *, generated: bool = False) -> None:
        super().__init__()
        self.length = length
        self.width = width
        self.generated: Tensor | None = None
        start = torch.randn(length, width) if values is None else values.detach().clone().float()
        self.rows = None if generated else nn.Parameter(start)

    def table(self) -> Tensor:
        """The rows as they are now, (length, width)."""
        rows = self.generated if self.rows is None else self.rows
        if rows is None:
            raise RuntimeError("generated rows were asked for before their generator ran")
        return rows

    def fold(self, rows: Tensor) -> None:
        """Keep ``rows`` (length, width) as this part's own parameter from now on."""
        self.rows = nn.Parameter(rows.detach().clone())
        self.generated = None


class TokenRows(Rows):
    """Embedding rows of virtual tokens: E[V + j] = rows[j], (length, d)."""

    def forward(self, embedded: Tensor, virtual: Tensor) -> Tensor:
        """Write row ``virtual[b, t]`` over ``embedded[b, t]`` wherever it is ≥ 0.

        ``embedded`` (B, T, d), ``virtual`` (B, T) of integers. Returns (B, T, d).
        """
        table = self.table().to(embedded.dtype)
        own = table[virtual.clamp(min=0)]  # (B, T, d)
        return torch.where((virtual >= 0)[..., None], own, embedded)


class HiddenRows(Rows):
    """Rows among the hidden states that enter a layer: X ← [x_0; P; x_1; …], P (length, d)."""

    def forward(self) -> Tensor:
        """The rows (length, d)."""
        return self.table()


class KeyValueRows(Rows):
    """Key and value rows of one attention: K ← [P_k; K], V ← [P_v; V].

    One row holds the key of every head, then the value of every head: width = heads·(d_k + d_v).
    No projection and no position embedding is applied to them (Li & Liang 2021, footnote 1).
    """

    def __init__(
        self,
        length: int,
        heads: int,
        key_width: int,
        value_width: int,
        values: Tensor | None = None,
        *,
        generated: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(length, heads * (key_width + value_width), values, generated=generated)
        self.heads, self.key_width, self.value_width = heads, key_width, value_width
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Keys (heads, length, d_k) and values (heads, length, d_v)."""
        rows = self.dropout(self.table())
        key, value = rows.split([self.heads * self.key_width, self.heads * self.value_width], dim=-1)
        key = key.view(self.length, self.heads, self.key_width).transpose(0, 1)
        value = value.view(self.length, self.heads, self.value_width).transpose(0, 1)
        return key, value
