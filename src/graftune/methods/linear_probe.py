"""The linear probe: nothing but the new head is trained, on the base's features as they are. Alain and Bengio 2016,
arXiv:1610.01644, section 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import HEADS, Conditions, Kind, head_rate

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class LinearProbe(Method):
    """No part of its own: what every method has to be better than, where the task has a new head."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"head": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = HEADS

    @property
    def rates(self) -> dict[str, float]:
        """Its rate is that of all it trains, the head."""
        return {"": 1.0}

    def usual_rate(self, on: Conditions) -> float:
        return head_rate(on)

    def build(self, context: Context) -> Build:
        return Build()
