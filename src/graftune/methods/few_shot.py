"""Few-shot in-context examples: solved examples in front of the input, nothing trained. Brown et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class FewShot(Method):
    """``examples`` solved training examples, drawn by the run's seed, before the input; no parameters."""

    examples: int = 3

    presets: ClassVar[dict[str, dict[str, Any]]] = {"few-shot": {}}
    trainable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._at_least(1, "examples")

    @property
    def shots(self) -> int:
        return self.examples

    def build(self, context: Context) -> Build:
        return Build()
