"""P-tuning v2: deep prompts (key/value rows in every layer) with a task head. Liu et al. 2022, arXiv:2110.07602."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.prefix_tuning import key_value_grafts
from graftune.methods.rates import Kind, rates

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class PTuningV2(Method):
    """``length`` key/value rows per attention, trained directly: 2·L·length·d_kv parameters.

    They start N(0, 0.02) as in the released code; ``reparameterize`` (off by default) makes them by an MLP of
    ``hidden`` units. Positions of the text do not move. Learning rates are large (5e-3 … 3e-2).
    """

    length: int = 20
    reparameterize: bool = False
    hidden: int = 512
    dropout: float = 0.0

    presets: ClassVar[dict[str, dict[str, Any]]] = {"p-tuning-v2": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-2)
    falls_with_width: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._at_least(1, "length", "hidden")
        self._at_least(0, "dropout")

    def build(self, context: Context) -> Build:
        hidden = self.hidden if self.reparameterize else None
        return key_value_grafts(context, self.length, hidden=hidden, text=None, std=0.02, dropout=self.dropout)
