"""Generators: networks that make a part's rows while it is trained, and are folded away on export."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TableMLP(nn.Module):
    """rows = MLP(P'), P' an embedding table (length, inner), MLP = Linear → Tanh → Linear.

    Prefix-tuning's reparameterisation: Li & Liang 2021, section 4.3. Output (length, width).
    """

    def __init__(self, length: int, inner: int, hidden: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, inner))
        self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.Tanh(), nn.Linear(hidden, width))

    def forward(self) -> Tensor:
        return self.mlp(self.table)


class PromptMLP(nn.Module):
    """rows = Linear(ReLU(Linear(e))), e a table (length, width): P-tuning's MLP encoder."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> Tensor:
        return self.mlp(self.table)


class PromptLSTM(nn.Module):
    """h_i = MLP([LSTM→(e)_i ; LSTM←(e)_i]): P-tuning's prompt encoder, Liu et al. 2021, eq. 4.

    A two-layer bidirectional LSTM of hidden size ``hidden`` (the released LAMA code uses width/2), then
    Linear → ReLU → Linear. Output (length, width).
    """

    def __init__(self, length: int, width: int, hidden: int | None = None, layers: int = 2) -> None:
        super().__init__()
        hidden = hidden or width // 2
        self.table = nn.Parameter(torch.randn(length, width))
        self.lstm = nn.LSTM(width, hidden, layers, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> Tensor:
        states, _ = self.lstm(self.table[None])  # (1, length, 2 hidden)
        return self.mlp(states[0])


class Generator(nn.Module):
    """An encoder whose columns are dealt out, in order, to the parts it generates.

    ``widths`` maps a part's key to the columns it takes of the encoder's output (length, sum of widths).
    """

    def __init__(self, encoder: nn.Module, keys: Sequence[str], widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.keys = tuple(keys)
        self.widths = tuple(widths)

    def forward(self) -> dict[str, Tensor]:
        rows = self.encoder()
        return dict(zip(self.keys, rows.split(self.widths, dim=-1), strict=True))

    def fit(self, targets: dict[str, Tensor], steps: int = 500, lr: float = 1e-4) -> None:
        """Move the encoder towards given rows by mean squared error (Li & Liang 2021, low-data init)."""
        goal = torch.cat([targets[key].to(torch.float32) for key in self.keys], dim=-1)
        optimizer = torch.optim.Adam(self.encoder.parameters(), lr=lr)
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.mse_loss(self.encoder(), goal).backward()
                optimizer.step()
        optimizer.zero_grad()
