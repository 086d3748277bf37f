"""IA3: k ← l_k ⊙ k, v ← l_v ⊙ v, FFN: W₂(l_ff ⊙ act(W₁ x)). Liu et al. 2022, arXiv:2205.05638, section 3.3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates
from graftune.parts import Scale

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class IA3(Method):
    """Trained vectors on keys, values and the FFN's inner activation: d_k + d_v + d_ff parameters a layer.

    ``outputs`` are the maps scaled on their output, ``inputs`` those scaled on their input. Starts at ones.
    """

    outputs: tuple[str, ...] = ("k", "v")
    inputs: tuple[str, ...] = ("down",)

    presets: ClassVar[dict[str, dict[str, Any]]] = {"ia3": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-2, vision=3e-2)

    def build(self, context: Context) -> Build:
        linears = context.anatomy.linears
        build = Build()
        build.grafts += [(site, Scale(site.outputs, "output")) for site in linears(self.outputs)]
        build.grafts += [(site, Scale(site.inputs, "input")) for site in linears(self.inputs)]
        return build
