"""The step: forward, backward and update for the rows of one batch, in micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graftune.model.adapted import AdaptedModel
from graftune.tasks.features import Features
from graftune.tasks.losses import mean_loss
from graftune.tasks.running import to_device
from graftune.tasks.task import Task
from graftune.training import distributed
from graftune.training.batching import micro_batches, padded
from graftune.training.budget import Budget
from graftune.training.optimizer import optimizer_of, set_rate
from graftune.training.trunk_cache import TrunkCache


@dataclass(frozen=True)
class Done:
    """What one step saw: its mean loss, the norm of its gradient before clipping, and its tokens."""

    loss: float
    norm: float
    tokens: int


@dataclass(frozen=True)
class _Part:
    """A micro-batch: its rows, their tensors, and how many targets they have."""

    rows: list[Features]
    batch: dict[str, Tensor]
    targets: int


class Step:
    """One adapter, its optimizer and how a batch is cut.

    The loss is the mean over all targets of the batch, however it is cut: a micro-batch counts by its share of
    the targets. Nothing random is carried from step to step.
    """

    def __init__(self, model: AdaptedModel, name: str, task: Task, pad: int, budget: Budget) -> None:
        self.model, self.name, self.task, self.pad, self.budget = model, name, task, pad, budget
        self.adapter = model.adapter(name)
        self.parameters = model.parameters_of(name)
        self.optimizer = optimizer_of(self.adapter, budget)
        #: Whether the base takes as many calls in every process, since its parts are put together in each.
        self.lockstep = distributed.is_sharded(model.base)
        #: Stands in for the frozen layers below the lowest trained one, where it is given.
        self.trunk: TrunkCache | None = None

    def __call__(self, number: int, features: Sequence[Features]) -> Done:
        """Step ``number``, counted from 0, on these rows."""
        torch.manual_seed((self.budget.seed * 1_000_003 + number) * distributed.size() + distributed.rank())
        loss, tokens = self.backward(features)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.budget.clip)
        set_rate(self.optimizer, self.budget.rate(number))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Done(loss, norm.item(), tokens)

    def backward(self, features: Sequence[Features]) -> tuple[float, int]:
        """Add the gradient of the batch's mean loss to the parameters; that loss, and the number of tokens."""
        longest_first = sorted(features, key=lambda f: -self._width(f))
        shares = [self._cut(rows) for rows in distributed.dealt(longest_first)]
        targets = sum(part.targets for share in shares for part in share)
        total = torch.zeros((), device=self.model.device)
        with self.adapter.generated_once():
            for part in self._own(shares):
                weight = part.targets / targets
                with nullcontext() if self.trunk is None else self.trunk.standing_in(part.rows, part.batch):
                    total += weight * self._loss(to_device(part.batch, self.model), weight)
        distributed.sum_gradients(self.parameters, total)
        return total.item(), sum(f.length for f in features)

    def _width(self, row: Features) -> int:
        return padded(row.length, self.model.positions)

    def _cut(self, rows: Sequence[Features]) -> list[_Part]:
        """Micro-batches of the rows of one process; those without any target are left out."""
        if not rows:
            return []
        cuts = micro_batches([self._width(row) for row in rows], self.budget.micro_tokens)
        chosen = [[rows[i] for i in cut] for cut in cuts]
        batches = [self.task.collate(part, self.pad, self._width(part[0])) for part in chosen]
        parts = [_Part(part, batch, self.task.targets(batch)) for part, batch in zip(chosen, batches, strict=True)]
        return [part for part in parts if part.targets]

    def _own(self, shares: Sequence[list[_Part]]) -> list[_Part]:
        """This process's micro-batches; in lockstep it runs along where others have more, and adds nothing."""
        own = shares[distributed.rank()]
        if not self.lockstep:
            return own
        most = max(shares, key=len)
        return own + [replace(part, targets=0) for part in most[len(own) :]]

    def _loss(self, batch: dict[str, Tensor], share: float) -> Tensor:
        """The mean loss of a micro-batch, whose gradient is added ``share`` times."""
        return mean_loss(self.model, self.name, self.task, batch, smoothing=self.budget.smoothing, share=share)
