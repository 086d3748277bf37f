"""Full fine-tuning: every parameter is trained, on copies, so that the base itself stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class FullFineTuning(Method):
    """A copy of every parameter; tied ones are copied once."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"full": {}}
    learning_rate: ClassVar[float] = 4e-4

    def build(self, context: Context) -> Build:
        return Build(context.copies(list(context.parameters)))
