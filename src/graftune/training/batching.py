"""Batching: which rows make which step, as a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 16  # batches sorted by length together: little padding, and still a random order


class Batches:
    """Row indices for each step; an epoch visits every row once.

    Rows are shuffled, sorted by length inside windows of a few batches, cut into batches, and the batches are
    shuffled. Any step can be asked for at once, which is what a resumed run does.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    @property
    def per_epoch(self) -> int:
        """Steps in one epoch; the last batch of an epoch may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    def __getitem__(self, step: int) -> list[int]:
        epoch, position = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches(epoch))
        return self._epoch[1][position]

    def _batches(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.lengths))
        window = WINDOW * self.batch_size
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size].tolist() for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]
