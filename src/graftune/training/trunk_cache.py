"""The frozen-trunk cache: what enters the first trained layer, computed once for each example.

Where the lowest trained part sits at layer k > 0, the layers below give the same activations in every epoch. They
are kept by the tokens they come from: first in memory, then in a file, each within a bound; rows beyond both are
computed each time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from graftune.inference.running import to_device
from graftune.model.adapted import AdaptedModel
from graftune.model.trunk import Trunk, lowest
from graftune.tasks.batches import by_length
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import Features
from graftune.training.batching import padded

BATCH_TOKENS = 2048
GIB = 2**30


def _store(tokens: int, like: Tensor, file: Path | None = None) -> Tensor:
    """Room for states (tokens, d) one after another: in memory, or in a file that the system maps."""
    width = like.shape[-1]
    if file is None:
        return torch.empty(tokens, width, dtype=like.dtype)
    return torch.from_file(str(file), shared=True, size=tokens * width, dtype=like.dtype).view(tokens, width)


class TrunkCache:
    """States (n, d) by the n tokens of a row."""

    def __init__(self, trunk: Trunk, task: BoundTask, memory: float, disk: float) -> None:
        """``memory`` and ``disk`` are bounds in GiB."""
        self.trunk, self.task = trunk, task
        self.bounds = memory * GIB, disk * GIB
        self._places: dict[tuple[int, ...], tuple[int, int, int]] = {}  # tokens -> store, first row, number of rows
        self._stores: list[Tensor] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def of(cls, model: AdaptedModel, name: str, task: BoundTask, memory: float, disk: float) -> TrunkCache | None:
        """The cache for training one adapter; None where it trains the lowest layer, or something below.

        None as well where inputs are no tokens, by which rows are known here.
        """
        depth = lowest(model, name) if task.task.processor == "AutoTokenizer" else 0
        return cls(Trunk(model, depth), task, memory, disk) if depth else None

    def fill(self, features: Sequence[Features]) -> None:
        """Compute the states of every row once, in an order and in batches that depend on the rows alone."""
        rows = list({tuple(f.ids): f for f in features}.values())
        lengths = [len(f.ids) for f in rows]
        like = self._compute(rows[:1])
        fits = self._plan([tuple(f.ids) for f in rows], like)
        size = max(1, BATCH_TOKENS // max(lengths))
        positions = self.trunk.model.positions
        for indices in by_length(lengths, size):
            chosen = [rows[i] for i in indices if i in fits]
            if chosen:
                width = padded(len(chosen[0].ids), positions)
                for feature, states in zip(chosen, self._compute(chosen, width), strict=True):
                    store, start, count = self._places[tuple(feature.ids)]
                    self._stores[store][start : start + count] = states[:count].cpu()

    def _plan(self, keys: Sequence[tuple[int, ...]], like: Tensor) -> set[int]:
        """Give each row its place while there is room; the numbers of those that have one."""
        width = like.shape[-1] * like.element_size()
        used = [0, 0]  # rows of states in memory and on disk
        fits: set[int] = set()
        for number, key in enumerate(keys):
            for store in (0, 1):
                if (used[store] + len(key)) * width <= self.bounds[store]:
                    self._places[key] = store, used[store], len(key)
                    used[store] += len(key)
                    fits.add(number)
                    break
        self._stores = [_store(used[0], like)]
        if used[1]:
            self._folder = tempfile.TemporaryDirectory(prefix="graftune-trunk-")
            self._stores.append(_store(used[1], like, Path(self._folder.name) / "states"))
        return fits

    @property
    def bytes(self) -> int:
        """What the kept states take, in memory and on disk."""
        return sum(store.numel() * store.element_size() for store in self._stores)

    def _compute(self, features: Sequence[Features], width: int = 0) -> Tensor:
        """States (rows, longest or ``width``, d) from the frozen layers."""
        batch = to_device(self.task.collate(features, width), self.trunk.model)
        return self.trunk(self.task.model_inputs(batch))

    @contextmanager
    def standing_in(self, features: Sequence[Features], batch: dict[str, Tensor]) -> Iterator[None]:
        """Within the block the base starts from the kept states of the rows that ``batch`` was collated from."""
        width = batch["input_ids"].shape[1]
        keys = [tuple(f.ids) for f in features]
        missing = [i for i, key in enumerate(keys) if key not in self._places]
        fresh = self._compute([features[i] for i in missing], width) if missing else None
        like = self._stores[0] if fresh is None else fresh
        states = torch.zeros(len(features), width, like.shape[-1], dtype=like.dtype, device=self.trunk.model.device)
        for row, key in enumerate(keys):
            if key in self._places:
                store, start, count = self._places[key]
                states[row, :count] = self._stores[store][start : start + count].to(states.device)
        if fresh is not None:
            states[missing] = fresh
        with self.trunk.replaced(states):
            yield

    def close(self) -> None:
        """Forget everything and delete the file."""
        self._places, self._stores = {}, []
        if self._folder is not None:
            self._folder.cleanup()
