"""The step: forward, backward and update for the rows of one batch, in micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graftune.inference.losses import batch_losses
from graftune.inference.running import to_device
from graftune.model.adapted import AdaptedModel
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.features import Features
from graftune.training import distributed
from graftune.training.batching import micro_batches, padded
from graftune.training.budget import Budget
from graftune.training.optimizer import optimizer_of, set_rate
from graftune.training.trunk_cache import TrunkCache


@dataclass(frozen=True)
class StepResult:
    """What one step saw: its mean loss, the norm of its gradient before clipping, and its tokens."""

    loss: float
    norm: float
    tokens: int


@dataclass(frozen=True)
class _Part:
    """A micro-batch: its rows, their tensors, and how many targets they have of each term of the loss, (terms,)."""

    rows: list[Features]
    batch: Batch
    counts: Tensor
    weight: float = 1.0


class Step:
    """One adapter, its optimizer and how a batch is cut.

    The loss is the mean over all targets of the batch, however it is cut: the sums of the micro-batches are divided by
    the counts of the whole. Nothing random is carried from step to step.
    """

    def __init__(self, model: AdaptedModel, name: str, task: BoundTask, budget: Budget) -> None:
        self.model, self.name, self.task, self.budget = model, name, task, budget
        self.adapter = model.adapter(name)
        self.parameters = model.parameters_of(name)
        self.optimizer = optimizer_of(self.adapter, budget)
        #: Whether the base takes as many calls in every process, since its parts are put together in each.
        self.lockstep = distributed.is_sharded(model.base)
        #: Stands in for the frozen layers below the lowest trained one, where it is given.
        self.trunk: TrunkCache | None = None

    def __call__(self, number: int, features: Sequence[Features]) -> StepResult:
        """Step ``number``, counted from 0, on these rows."""
        torch.manual_seed((self.budget.seed * 1_000_003 + number) * distributed.size() + distributed.rank())
        loss, tokens = self.backward(features)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.budget.clip)
        set_rate(self.optimizer, self.budget.rate(number))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepResult(loss, norm.item(), tokens)

    def backward(self, features: Sequence[Features]) -> tuple[float, int]:
        """Add the gradient of the batch's mean loss to the parameters; that loss, and the number of tokens."""
        longest_first = sorted(features, key=lambda f: -self._width(f))
        shares = [self._cut(rows) for rows in distributed.dealt(longest_first)]
        totals = sum((part.counts for share in shares for part in share), torch.zeros(()))
        total = torch.zeros((), device=self.model.device)
        with self.adapter.generated_once():
            for part in self._own(shares):
                with nullcontext() if self.trunk is None else self.trunk.standing_in(part.rows, part.batch):
                    total += self._loss(part, totals)
        distributed.sum_gradients(self.parameters, total)
        return total.item(), sum(f.length for f in features)

    def _width(self, row: Features) -> int:
        return padded(row.length, self.model.room(self.name))

    def _cut(self, rows: Sequence[Features]) -> list[_Part]:
        """Micro-batches of the rows of one process; those without any target are left out."""
        if not rows:
            return []
        cuts = micro_batches([self._width(row) for row in rows], self.budget.micro_tokens)
        chosen = [[rows[i] for i in cut] for cut in cuts]
        batches = [self.task.collate(part, self._width(part[0])) for part in chosen]
        parts = [
            _Part(part, batch, self.task.counts(batch).sum(0)) for part, batch in zip(chosen, batches, strict=True)
        ]
        return [part for part in parts if part.counts.any()]

    def _own(self, shares: Sequence[list[_Part]]) -> list[_Part]:
        """This process's micro-batches.

        When the base is sharded every process must make the same number of forward calls: one with fewer micro-batches
        repeats others' with weight 0.
        """
        own = shares[distributed.rank()]
        if not self.lockstep:
            return own
        most = max(shares, key=len)
        return own + [replace(part, weight=0.0) for part in most[len(own) :]]

    def _loss(self, part: _Part, totals: Tensor) -> Tensor:
        """The share of a micro-batch in the mean loss, whose gradient is added."""
        batch = to_device(part.batch, self.model)
        divisors = torch.where(totals == 0, 1.0, totals) if part.weight else torch.full_like(totals, torch.inf)
        sums = batch_losses(self.model, self.name, self.task, batch, smoothing=self.budget.smoothing, totals=divisors)
        return (sums.sum(0) / divisors.to(sums.device)).sum()
