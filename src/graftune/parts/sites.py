"""Sites: the places in a base where a part attaches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class LinearSite:
    """One linear map, or the columns ``start:stop`` of a fused one; with ``every``, those of each such stretch.

    ``path`` is the module's name in the base, ``inputs``/``outputs`` its widths, ``role`` one of
    q, k, v, o, gate, up, down or "" where the anatomy could not tell.
    """

    path: str
    inputs: int
    outputs: int
    role: str = ""
    layer: int = -1
    start: int | None = None
    stop: int | None = None
    every: int | None = None

    @cached_property
    def columns(self) -> slice | list[int]:
        """Which outputs of the map these are: all, a slice, or (one head after the other) a list."""
        if self.start is None or self.stop is None or self.every is None:
            return slice(self.start, self.stop)
        width = self.stop - self.start
        firsts = range(self.start, self.outputs // width * self.every, self.every)
        return [first + column for first in firsts for column in range(width)]

    @property
    def key(self) -> str:
        """The name under which a part at this site is stored."""
        return self.path if self.start is None else f"{self.path}[{self.role}]"


@dataclass(frozen=True)
class AttentionSite:
    """One attention: where key/value rows are added. Head counts are those of the keys (grouped-query)."""

    path: str
    heads: int
    key_width: int
    value_width: int
    layer: int
    kind: str = "self"
    causal: bool = True

    @property
    def key(self) -> str:
        return self.path


@dataclass(frozen=True)
class SubLayerSite:
    """The output of a sub-layer after its projection and dropout, before the residual add.

    ``first`` is the module that reads the sub-layer's input: a linear, or where it has none of its own (a mixture of
    experts) the block as a whole. ``norm_before`` (pre-norm models) reads the residual stream; ``norm_after``
    (post-norm models) follows the residual add.
    """

    path: str
    role: str
    width: int
    layer: int
    first: str
    norm_before: str | None = None
    norm_after: str | None = None

    @property
    def key(self) -> str:
        return self.path


@dataclass(frozen=True)
class EmbeddingSite:
    """The input embedding: where rows of virtual tokens are written."""

    path: str
    rows: int
    width: int

    @property
    def key(self) -> str:
        return self.path


@dataclass(frozen=True)
class LayerSite:
    """The input of a layer: where rows join the hidden states."""

    path: str
    width: int
    layer: int

    @property
    def key(self) -> str:
        return self.path


@dataclass(frozen=True)
class ModuleSite:
    """A module that owns parameters: where trained copies replace them."""

    path: str
    layer: int = -1

    @property
    def key(self) -> str:
        return self.path


Site = LinearSite | AttentionSite | SubLayerSite | EmbeddingSite | LayerSite | ModuleSite
