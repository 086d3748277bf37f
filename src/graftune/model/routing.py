"""Routing: which adapter each row of the batch uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

import torch
from torch import Tensor

from graftune.errors import GraftuneError, unknown

Names = str | None | Sequence[str | None]


class InUse(Enum):
    """What ``adapters`` is where a call does not say it: None says the plain base."""

    ADAPTERS = "the adapters in use"


class Routing:
    """Rows of the current batch by adapter name.

    Set by each forward or generate call and kept until the next one, so that a layer recomputed under
    gradient checkpointing (`runs_again`) sees the same rows. Beams and returned sequences multiply the batch; the rows
    are then repeated the way ``generate`` repeats them.
    """

    def __init__(self) -> None:
        self.names: tuple[str | None, ...] = ()
        #: Whether a call of the adapted model is under way, and whether layers of the last one may run again.
        self.running, self.runs_again = False, False
        self._rows: dict[tuple[str, int], Tensor] = {}

    def set(self, adapters: Names, batch: int, known: Sequence[str]) -> None:
        """Route ``batch`` rows; one name (or None) stands for all of them.

        Raises GraftuneError for an unknown name or a list of another length.
        """
        names = (adapters,) * batch if adapters is None or isinstance(adapters, str) else tuple(adapters)
        if len(names) != batch:
            raise GraftuneError(
                "one adapter name per row is needed",
                received=f"{len(names)} names for {batch} rows",
                expected="a list as long as the batch, or a single name for all rows",
                do="pass adapters=[name, None, …] with None for rows of the plain base",
            )
        for name in set(names) - {None}:
            if name not in known:
                raise unknown("adapter", str(name), known)
        self.names = names
        self._rows = {}

    @contextmanager
    def only(self, name: str, rows: int) -> Iterator[None]:
        """Within the block the batch is ``rows`` rows of one adapter: a module is run again on them."""
        names, cached = self.names, self._rows
        self.names, self._rows = (name,) * rows, {}
        try:
            yield
        finally:
            self.names, self._rows = names, cached

    @contextmanager
    def run(self) -> Iterator[None]:
        """Within the block a call of the adapted model is under way."""
        before, self.running = self.running, True
        try:
            yield
        finally:
            self.running = before

    @property
    def active(self) -> tuple[str, ...]:
        """The adapters in use, in order of their first row."""
        return tuple(dict.fromkeys(name for name in self.names if name is not None))

    @property
    def in_force(self) -> tuple[str, ...]:
        """The adapters in use, where the base runs for the adapted model: not where somebody calls a part of it."""
        return self.active if self.running or self.runs_again else ()

    def covers_all(self, name: str) -> bool:
        """Whether every row uses this adapter."""
        return bool(self.names) and all(other == name for other in self.names)

    def expanded(self, batch: int) -> tuple[str | None, ...]:
        """The names for a batch of this size: each row repeated as beams repeat it."""
        times, rest = divmod(batch, max(len(self.names), 1))
        if rest or not times:
            raise GraftuneError(
                "a tensor inside the base does not hold one entry per row of the batch",
                received=f"{batch} entries for {len(self.names)} rows",
                expected="a multiple of the number of rows",
                do="use one adapter for the whole batch on this base",
            )
        return tuple(name for name in self.names for _ in range(times))

    def rows(self, name: str, batch: int, device: torch.device) -> Tensor:
        """Indices of the rows that use ``name`` in a batch of this size, (n,)."""
        key = (name, batch)
        if key not in self._rows:
            found = [i for i, other in enumerate(self.expanded(batch)) if other == name]
            self._rows[key] = torch.tensor(found, device=device)
        return self._rows[key]
