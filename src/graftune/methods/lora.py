"""LoRA: h = W x + (α/r) B A x. Hu et al. 2021, arXiv:2106.09685, section 4.1.

Variants: LoRA+ lets B learn faster than A (Hayou et al. 2024, arXiv:2402.12354); rsLoRA scales by α/√r
(Kalajdzievski 2023, arXiv:2312.03732); DoRA trains magnitude and direction apart,
W' = m ⊙ (W + s·BA)/‖W + s·BA‖ (Liu et al. 2024, arXiv:2402.09353).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import Conditions, Kind, rates
from graftune.parts import DecomposedLowRank, LowRank

if TYPE_CHECKING:
    from graftune.model.context import Context

RANK_POWER = math.log(3, 16)


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank update of chosen linear maps; Σ r(d_in + d_out) parameters (DoRA: + d_out each).

    ``targets``: roles (q, k, v, o, gate, up, down), module names, or "all" inside the layers. ``alpha``
    is 32 as in the paper's GPT-2 runs; None means the rank, a scale of one. A starts Kaiming-uniform, B zero:
    no-op at the start. ``last``: only that many upper layers. ``plus``: LoRA+'s ratio of B's learning rate to
    A's (16 in the paper).
    """

    rank: int = 8
    alpha: float | None = 32
    targets: str | tuple[str, ...] = ("q", "v")
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    last: int | None = None
    plus: float | None = None

    presets: ClassVar[dict[str, dict[str, Any]]] = {"lora": {}, "dora": {"dora": True}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-3, vision=3e-3)

    def __post_init__(self) -> None:
        self._at_least(1, "rank")
        self._at_least(0, "dropout")
        self._at_least(1, *(name for name in ("last", "plus") if getattr(self, name) is not None))

    @property
    def rates(self) -> dict[str, float]:
        return {} if self.plus is None else {r"\.B$": self.plus}

    @property
    def scale(self) -> float:
        """α/r, or α/√r for rsLoRA."""
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)

    def usual_rate(self, on: Conditions) -> float:
        """A step down for 16 times the rank at one scale; at one α the rank does not matter (rate ∝ (s · r)^-0.4)."""
        usual = type(self)()
        return super().usual_rate(on) * (usual.scale * usual.rank / (self.scale * self.rank)) ** RANK_POWER

    def build(self, context: Context) -> Build:
        build = Build()
        for site in context.upper(context.anatomy.linears(self.targets), self.last):
            sizes = (site.inputs, site.outputs, self.rank, self.scale, self.dropout)
            part = DecomposedLowRank(*sizes, weight=context.weight(site)) if self.dora else LowRank(*sizes)
            build.grafts.append((site, part))
        return build
