"""Hard prompt: words in front of the input, nothing trained. The discrete baseline of Li & Liang 2021, section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class HardPrompt(Method):
    """A fixed instruction before the input; no parameters.

    ``pattern`` holds ``{input}`` once; ``{instruction}`` stands for the task's own words.
    """

    pattern: str = "{instruction}\n{input}"

    presets: ClassVar[dict[str, dict[str, Any]]] = {"hard-prompt": {}}
    trainable: ClassVar[bool] = False

    @property
    def template(self) -> str:
        return self.pattern

    def build(self, context: Context) -> Build:
        return Build()
