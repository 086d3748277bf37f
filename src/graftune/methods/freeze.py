"""Freeze: train chosen layers, freeze the rest. The FT-top baseline of Li & Liang 2021, section 5.2, and of
Houlsby et al. 2019, section 3.4."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.errors import GraftuneError
from graftune.methods.method import Build, Method
from graftune.methods.rates import Kind, rates

if TYPE_CHECKING:
    from graftune.model.context import Context


@dataclass(frozen=True)
class Freeze(Method):
    """Copies of the ``last`` layers with the final norm, the ``first`` layers, or parameters by ``names``.

    ``names`` are regular expressions searched in the base's parameter names. GPT-2: k(12d² + 13d) + 2d
    parameters for ``last=k``. Embeddings and a head tied to them are never among the layers.
    """

    last: int = 2
    first: int = 0
    names: tuple[str, ...] = ()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"freeze": {}}
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(2e-4)

    def __post_init__(self) -> None:
        self._at_least(0, "last", "first")

    def build(self, context: Context) -> Build:
        layers = context.anatomy.layers
        if not self.names and (self.first + self.last == 0 or self.first + self.last > len(layers)):
            raise GraftuneError(
                "Freeze: there are not that many layers to train",
                received=f"first={self.first}, last={self.last}",
                expected=f"1 to {len(layers)} layers",
                do="lower them, or use full fine-tuning",
            )
        if self.names:
            return Build(context.copies(self._named(context)))
        chosen = layers[: self.first] + (layers[-self.last :] if self.last else [])
        prefixes = tuple(f"{layer.path}." for layer in chosen)
        names = [name for name in context.parameters if name.startswith(prefixes)]
        if self.last:
            names += [n for n in context.parameters if n.rpartition(".")[0] in context.anatomy.final_norms]
        return Build(context.copies(names))

    def _named(self, context: Context) -> list[str]:
        found = [n for n in context.parameters if any(re.search(p, n) for p in self.names)]
        for pattern in self.names:
            if not any(re.search(pattern, n) for n in context.parameters):
                raise GraftuneError(
                    "Freeze: a name matches no parameter",
                    received=repr(pattern),
                    expected="a regular expression found in a parameter name, such as " + context.parameters[-1],
                    do="look at the names with `graftune inspect`",
                )
        return found
