"""BitFit: train the biases only, b ← b'. Ben Zaken et al. 2021, arXiv:2106.10199, section 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates
from graftune.parts import Bias

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class BitFit(Method):
    """Copies of every bias of the trunk, LayerNorm's included.

    A linear map inside the layers that has no bias gets one, zero at the start (as T-Few does on T5), so
    that the method also fits bases without biases. ``add=False`` leaves those maps alone.
    """

    add: bool = True

    presets: ClassVar[dict[str, dict[str, Any]]] = {"bitfit": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-3)

    def build(self, context: Context) -> Build:
        trunk = [n for n in context.parameters if n.rpartition(".")[2] == "bias" and not context.in_head(n)]
        build = Build(context.copies(trunk))
        if self.add:
            for site in context.anatomy.linears("all"):
                if getattr(context.anatomy.modules[site.path], "bias", None) is None:
                    build.grafts.append((site, Bias(site.outputs)))
        return build
