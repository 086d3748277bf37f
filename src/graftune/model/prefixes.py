"""Prefixes: the key/value rows of a batch, gathered per attention."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from graftune.model import attention
from graftune.model.anatomy import Anatomy
from graftune.model.attach import Registration
from graftune.model.routing import Routing
from graftune.parts import KeyValueRows, Site


class Prefixes:
    """Key/value rows by attention and adapter; takes over the base's attention while there are any."""

    def __init__(self, anatomy: Anatomy, routing: Routing) -> None:
        self.anatomy, self.routing = anatomy, routing
        self.parts: dict[str, dict[str, KeyValueRows]] = {}

    def add(self, name: str, site: Site, part: KeyValueRows) -> Registration:
        """Attach rows for one adapter at one attention."""
        module = self.anatomy.modules[site.path]
        if not self.parts:
            attention.intercept(self.anatomy.base)
        if site.path not in self.parts:
            rows = self.parts[site.path] = {}
            attention.extend(module, self._extension(rows))
        self.parts[site.path][name] = part
        return Registration(partial(self.drop, name, site.path))

    def drop(self, name: str, path: str) -> None:
        """Detach one adapter's rows; the base gets its own attention back with the last ones."""
        del self.parts[path][name]
        if not self.parts[path]:
            del self.parts[path]
            attention.unextend(self.anatomy.modules[path])
        if not self.parts:
            attention.release(self.anatomy.base)

    def _extension(self, parts: dict[str, KeyValueRows]) -> attention.Extend:
        def extend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
        ) -> tuple[Tensor, Tensor, Tensor | None]:
            active = [name for name in self.routing.in_force if name in parts]
            if not active:
                return key, value, mask
            rows = {name: parts[name]() for name in active}
            keys, values, visible = self._stack(rows, query.shape[0], query.device)
            return attention.prepend(module, query, key, value, mask, keys, values, visible)

        return extend

    def _stack(
        self, rows: dict[str, tuple[Tensor, Tensor]], batch: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B, heads, l, width) and visibility (B, l): each row's own, padded."""
        names = list(rows)
        if len(names) == 1 and self.routing.covers_all(names[0]):
            key, value = rows[names[0]]
            seen = torch.ones(batch, key.shape[1], dtype=torch.bool, device=device)
            return key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1), seen
        lengths = [key.shape[1] for key, _ in rows.values()]
        longest = max(lengths)

        def table(which: int) -> Tensor:
            padded = [nn.functional.pad(r[which], (0, 0, 0, longest - r[which].shape[1])) for r in rows.values()]
            return torch.stack([torch.zeros_like(padded[0]), *padded])  # entry 0: a row without a prefix

        index = torch.tensor(
            [names.index(n) + 1 if n in rows else 0 for n in self.routing.expanded(batch)], device=device
        )
        seen = torch.arange(longest, device=device) < torch.tensor([0, *lengths], device=device)[:, None]
        return table(0).index_select(0, index), table(1).index_select(0, index), seen.index_select(0, index)
