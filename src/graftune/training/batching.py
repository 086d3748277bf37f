"""Batching: which rows make which step, as a pure function of the seed and the step, and how a step is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STARTING = 64  # what a micro-batch costs beside its tokens, in tokens


class Batches:
    """Row indices for each step; an epoch visits every row once, in an order of its own.

    Any step can be asked for at once, which is what a resumed run does. Rows are not sorted by length here:
    a step does that itself when it cuts them.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.uint32))

    @property
    def per_epoch(self) -> int:
        """Steps in one epoch; the last batch of an epoch may be smaller."""
        return -(-self.rows // self.batch_size)

    def __getitem__(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            order = np.arange(self.rows, dtype=np.uint32)
            np.random.default_rng((self.seed, epoch)).shuffle(order)
            self._order = (epoch, order)
        indices: list[int] = self._order[1][position * self.batch_size : (position + 1) * self.batch_size].tolist()
        return indices


def padded(length: int, positions: int | None) -> int:
    """The number of columns for a row: a multiple of 8, as far as the base has positions.

    Few different shapes, since for a new one the processor's products have to be prepared first.
    """
    return max(length, min(-(-length // 8) * 8, positions or length))


def micro_batches(lengths: Sequence[int], tokens: int | None) -> list[list[int]]:
    """Indices of rows in groups of at most ``tokens`` tokens with their padding; None keeps all together.

    Longest first, and cut where that is cheapest: each group costs its rows times its longest, and ``STARTING``
    more; of equal costs the more equal groups are taken. A row longer than ``tokens`` is a group by itself.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if tokens is None:
        return [order]
    best: list[tuple[int, int, int]] = [(0, 0, 0)]  # for the first n rows: cost, squares of sizes, start of the last
    for stop in range(1, len(order) + 1):
        ways = []
        for start in range(stop):
            size, longest = stop - start, lengths[order[start]]
            if size == 1 or size * longest <= tokens:
                cost, squares, _ = best[start]
                ways.append((cost + size * longest + STARTING, squares + size * size, start))
        best.append(min(ways))
    groups: list[list[int]] = []
    stop = len(order)
    while stop:
        start = best[stop][2]
        groups.append(order[start:stop])
        stop = start
    return groups[::-1]
