"""The step: forward, backward and update for the rows of one batch, in micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from graftune.model.adapted import AdaptedModel
from graftune.tasks.losses import mean_loss
from graftune.tasks.task import Features, Task, to_device
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
        widths = [padded(len(f.ids), self.model.positions) for f in features]
        cuts = [[features[i] for i in cut] for cut in micro_batches(widths, self.budget.micro_tokens)]
        batches = [self.task.collate(cut, self.pad, padded(len(cut[0].ids), self.model.positions)) for cut in cuts]
        targets = [self.task.targets(batch) for batch in batches]
        total = torch.zeros((), device=self.model.device)
        with self.adapter.generated_once():
            for cut, batch, count in distributed.share(list(zip(cuts, batches, targets, strict=True))):
                if count:
                    part = count / sum(targets)
                    with nullcontext() if self.trunk is None else self.trunk.standing_in(cut, batch):
                        total += part * self._loss(to_device(batch, self.model), part)
        if distributed.size() > 1:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            distributed.summed([total, *(p.grad for p in self.parameters if p.grad is not None)])
        return total.item(), sum(len(f.ids) for f in features)

    def _loss(self, batch: dict[str, Tensor], share: float) -> Tensor:
        """The mean loss of a micro-batch, whose gradient is added ``share`` times."""
        return mean_loss(self.model, self.name, self.task, batch, smoothing=self.budget.smoothing, share=share)
