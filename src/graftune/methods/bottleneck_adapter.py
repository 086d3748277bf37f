"""Bottleneck adapters: h ← h + s·(act(x W_d + b_d) W_u + b_u).

Houlsby et al. 2019, arXiv:1902.00751, section 2.1; Pfeiffer et al. 2020, arXiv:2005.00247, section 3;
parallel and scaled adapters: He et al. 2021, arXiv:2110.04366, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from graftune.errors import unknown
from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates
from graftune.parts import Bottleneck
from graftune.parts.output_function import ACTIVATIONS, Reads

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class _Style:
    sublayers: tuple[str, ...]
    reads: Reads
    activation: str
    scale: float
    init: Literal["normal", "lora"]
    std: float
    norms: bool


STYLES = {
    "houlsby": _Style(("attention", "mlp"), "output", "gelu", 1.0, "normal", 1e-3, True),
    "pfeiffer": _Style(("mlp",), "residual", "relu", 1.0, "normal", 0.02, False),
    "parallel": _Style(("mlp",), "input", "relu", 4.0, "lora", 0.0, False),
}


@dataclass(frozen=True)
class BottleneckAdapter(Method):
    """A two-layer network of ``bottleneck`` units beside or behind sub-layers: 2md + m + d parameters each.

    ``style``: "houlsby" after attention and FFN, x = the sub-layer's output, all LayerNorms trained too;
    "pfeiffer" after the FFN, x = the residual stream (post-norm models: through the pretrained LayerNorm);
    "parallel" beside the FFN, x = its input, s = 4, W_u zero at the start. ``activation``, ``scale``, ``std``
    and ``norms`` default to the style's. ``last``: only in that many upper layers.
    """

    style: str = "houlsby"
    bottleneck: int = 32
    activation: str | None = None
    scale: float | None = None
    std: float | None = None
    norms: bool | None = None
    dropout: float = 0.0
    last: int | None = None

    presets: ClassVar[dict[str, dict[str, Any]]] = {name: {"style": name} for name in STYLES}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(5e-4, encoder_decoder=1e-3)

    def __post_init__(self) -> None:
        self._one_of("style", STYLES)
        self._at_least(1, "bottleneck", *(("last",) if self.last is not None else ()))
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)

    def build(self, context: Context) -> Build:
        style = STYLES[self.style]
        build = Build()
        for role in style.sublayers:
            for site in context.upper(context.anatomy.sublayers(role), self.last):
                part = Bottleneck(
                    site.width,
                    self.bottleneck,
                    activation=self.activation or style.activation,
                    scale=style.scale if self.scale is None else self.scale,
                    reads=style.reads,
                    init=style.init,
                    std=style.std if self.std is None else self.std,
                    dropout=self.dropout,
                )
                build.grafts.append((site, part))
        if style.norms if self.norms is None else self.norms:
            build.grafts += context.copies(context.norm_parameters(self.last))
        return build
