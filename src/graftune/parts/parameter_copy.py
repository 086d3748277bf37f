"""ParameterCopy: chosen parameters of one module replaced by trained copies."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from graftune.parts.named import NamedParameters


class ParameterCopy(nn.Module):
    """Copies of some parameters of one module; they start equal to the base's, and are kept in fp32.

    ``alias`` names parameters whose copy another part owns (tied weights are copied once).
    """

    def __init__(self, values: Mapping[str, Tensor], alias: Mapping[str, nn.Parameter] | None = None) -> None:
        super().__init__()
        self.copies = NamedParameters()
        self.copies.update((name, nn.Parameter(v.detach().float().clone())) for name, v in values.items())
        # A plain dict: the owner registers these parameters, and each must be counted and stored once.
        self.alias = dict(alias or {})

    def forward(self) -> dict[str, nn.Parameter]:
        """Parameter name in the module -> trained copy."""
        return {**dict(self.copies.items()), **self.alias}
