"""Full fine-tuning: every parameter is trained, on copies, so that the base itself stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class FullFineTuning(Method):
    """A copy of every parameter; tied ones are copied once."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"full": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(5e-5, encoder_decoder=1e-4, vision=1e-4)

    def build(self, context: Context) -> Build:
        return Build(context.copies(list(context.parameters)))
