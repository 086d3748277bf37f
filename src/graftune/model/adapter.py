"""Adapter: one trained instance of a method on a base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.parts import Generator, KeyValueRows, NamedModules, ParameterCopy, Rows, Site, TokenRows


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: ``trained`` with the generator, ``stored`` after it is folded away."""

    trained: int
    stored: int


def escape(key: str) -> str:
    """A site's key as a module name, which must not hold dots."""
    return key.replace(".", "/")


def parameters_of(head: str) -> str:
    """A pattern found in the names of an adapter's parameters that belong to a head of this path."""
    return rf"^parts\.{re.escape(escape(head))}[/.]"


class Adapter(nn.Module):
    """Parts by site, the generators that make some of them, and the method they came from."""

    def __init__(
        self,
        method: Method,
        grafts: Iterable[tuple[Site, nn.Module]],
        generators: Iterable[Generator],
        heads: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.method = method
        self.heads = heads
        self.sites: dict[str, Site] = {}
        self.parts: nn.ModuleDict = NamedModules()
        for site, part in grafts:
            key = escape(site.key)
            if isinstance(part, ParameterCopy):
                key += "/="  # a module may hold copies of its parameters beside another part
                known = dict(self.parts.items()).get(key)
                if isinstance(known, ParameterCopy):  # a head's copies join those of the method
                    known.copies.update(part.copies.items())
                    known.alias.update(part.alias)
                    continue
            if key in self.parts:
                raise GraftuneError(
                    f"{type(method).__name__} puts two parts at one site",
                    received=site.key,
                    expected="one part a site",
                    do="name the site once in the method's options",
                )
            self.sites[key] = site
            self.parts[key] = part
        self.generators = nn.ModuleList(generators)
        self._fixed = False  # whether the generated rows stand for now

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens this adapter has."""
        return sum(part.length for part in self.parts.values() if isinstance(part, TokenRows))

    @property
    def offset(self) -> int:
        """By how much the positions of the text are shifted."""
        if not self.method.shifts:
            return 0
        return max(part.length for part in self.parts.values() if isinstance(part, KeyValueRows))

    def at(self, path: str) -> list[nn.Module]:
        """The parts at a module of the base."""
        return [part for key, part in self.parts.items() if self.sites[key].path == path]

    def refresh(self) -> None:
        """Run each generator and hand its rows to the parts: once per call, not per row or layer."""
        if self._fixed:
            return
        for part, rows in self._generate():
            part.generated = rows

    def _generate(self) -> Iterator[tuple[Rows, Tensor]]:
        """Each generated part with its rows as they are now."""
        for generator in self.generators:
            for key, rows in generator().items():
                part = self.parts[escape(key)]
                assert isinstance(part, Rows)
                yield part, rows

    @contextmanager
    def generated_once(self) -> Iterator[None]:
        """Within the block the generators have run once, for all calls; at its end their gradient is sent back.

        Inside, the rows collect the gradients of any number of backward passes.
        """
        made = list(self._generate())
        for part, rows in made:
            part.generated = rows.detach().requires_grad_()
        self._fixed = True
        try:
            yield
        finally:
            self._fixed = False
        used = [(rows, part.generated.grad) for part, rows in made if part.generated is not None]
        reached = [(rows, gradient) for rows, gradient in used if gradient is not None]
        if reached:
            torch.autograd.backward([rows for rows, _ in reached], [gradient for _, gradient in reached])

    def fold(self) -> None:
        """Turn generated rows into plain parameters and drop the generators."""
        with torch.no_grad():
            for part, rows in self._generate():
                part.fold(rows)
        self.generators = nn.ModuleList()

    def stored(self) -> dict[str, Tensor]:
        """The tensors an export holds, by name: generated rows folded, generators left out."""
        tensors = {f"parts.{name}": p.detach() for name, p in self.parts.named_parameters()}
        with torch.no_grad():
            for generator in self.generators:
                for key, rows in generator().items():
                    tensors[f"parts.{escape(key)}.rows"] = rows
        return tensors

    def count(self) -> Count:
        """Trained and stored numbers of parameters, heads included."""
        return Count(
            sum(p.numel() for p in self.parameters() if p.requires_grad),
            sum(t.numel() for t in self.stored().values()),
        )
