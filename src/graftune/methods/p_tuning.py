"""P-tuning: virtual tokens anywhere in a template, h_i = MLP(BiLSTM(e)_i). Liu et al. 2021, arXiv:2103.10385."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.errors import GraftuneError
from graftune.methods.method import Build, Method
from graftune.methods.rates import WIDE, Kind, rates
from graftune.parts import Generator, PromptLSTM, PromptMLP, TokenRows

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class PTuning(Method):
    """Virtual tokens where ``pattern`` has ``{P:n}``, between its anchor words: m·d parameters stored.

    ``pattern`` holds ``{input}`` once. ``encoder``: "lstm" (two-layer BiLSTM, then an MLP) or "mlp". ``hidden``
    is the LSTM's size a direction, by default d/2 as in the released code. The encoder only trains: an
    adapter stores the rows it makes.
    """

    pattern: str = "{P:5}{input}{P:5}"
    encoder: str = "lstm"
    hidden: int | None = None

    presets: ClassVar[dict[str, dict[str, Any]]] = {"p-tuning": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(5e-3)
    falls_with_width: ClassVar[bool] = False
    spacing: ClassVar[float] = WIDE

    def __post_init__(self) -> None:
        self._one_of("encoder", ("lstm", "mlp"))
        if not self.length:
            raise GraftuneError(
                "PTuning: the pattern has no virtual tokens",
                received=repr(self.pattern),
                expected="a pattern such as '{P:5}{input}{P:5}'",
                do="put {P:n} where n virtual tokens should stand",
            )

    @property
    def length(self) -> int:
        """Number of virtual tokens in the pattern."""
        return sum(int(n) for n in re.findall(r"\{P:(\d+)\}", self.pattern))

    @property
    def template(self) -> str:
        return self.pattern

    @property
    def front(self) -> bool:
        return re.fullmatch(r"(\{P:\d+\})+\{input\}", self.pattern) is not None

    def build(self, context: Context) -> Build:
        site = context.anatomy.embedding
        if self.encoder == "lstm":
            encoder: PromptLSTM | PromptMLP = PromptLSTM(self.length, site.width, self.hidden)
        else:
            encoder = PromptMLP(self.length, site.width)
        part = TokenRows(self.length, site.width, generated=True)
        return Build([(site, part)], [Generator(encoder, [site.key], [site.width])])
