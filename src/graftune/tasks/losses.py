"""The loss of a batch, computed where it has targets and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftune.model.adapted import AdaptedModel
from graftune.tasks.batches import IGNORED
from graftune.tasks.features import Features
from graftune.tasks.running import batches
from graftune.tasks.task import Task

CHUNK_BYTES = 2**25  # of logits at a time
ROWS = 32  # chunks are multiples of it: a product of a new shape has to be prepared first


def mean_loss(
    model: AdaptedModel,
    adapter: str | None,
    task: Task,
    batch: dict[str, Tensor],
    *,
    smoothing: float = 0.0,
    share: float | None = None,
) -> Tensor:
    """The mean cross-entropy over the targets of ``batch``, a float32 scalar without a graph.

    With ``share``, the gradient of share · loss has been added to the trained parameters by the time it returns.
    """
    answers = task.answers(batch)
    if answers is None:
        loss = task.loss(task.outputs(model, batch, adapter), batch, smoothing)
        if share is not None:
            (loss * share).backward()
        return loss.detach()
    hidden = model.hidden(**task.inputs(batch), adapters=adapter)
    chosen = answers != IGNORED
    return _over_vocabulary(model, hidden[chosen], answers[chosen], smoothing, share)


def mean_over(
    model: AdaptedModel, adapter: str | None, task: Task, features: Sequence[Features], pad: int, batch_size: int
) -> float:
    """The mean over all targets of all rows, so that batching does not weigh in."""
    total, count = 0.0, 0
    for _, batch in batches(task, model, features, pad, batch_size):
        targets = task.targets(batch)
        total += mean_loss(model, adapter, task, batch).item() * targets
        count += targets
    return total / count


def _over_vocabulary(
    model: AdaptedModel, hidden: Tensor, answers: Tensor, smoothing: float, share: float | None
) -> Tensor:
    """The mean loss of hidden states (n, d) whose next tokens are ``answers`` (n,).

    The logits are made for a few positions at a time, and each time sent back at once: no more of them are ever
    held. What they say about the hidden states goes down the trunk together.
    """
    train = share is not None
    count = len(answers)
    hidden = nn.functional.pad(hidden, (0, 0, 0, -count % ROWS))
    answers = nn.functional.pad(answers, (0, -count % ROWS), value=IGNORED)
    states = hidden.detach().requires_grad_(train and hidden.requires_grad)
    bytes_a_row = hidden.element_size() * model.base.get_input_embeddings().weight.shape[0]
    rows = max(1, CHUNK_BYTES // (bytes_a_row * ROWS)) * ROWS
    total = torch.zeros((), device=hidden.device)
    with torch.set_grad_enabled(train):
        for part, targets in zip(states.split(rows), answers.split(rows), strict=True):
            logits = model.score(part)
            loss, gradient = _cross_entropy(logits.detach(), targets, smoothing, (share or 0.0) / count)
            total += loss / count
            if share is not None and logits.requires_grad:
                logits.backward(gradient)
    if states.grad is not None:
        hidden.backward(states.grad)
    return total


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of logits (n, V), in float32, and ``scale`` times its gradient, in their precision.

    With q the targets' distribution, (1 - s) on the target and s/V everywhere: -Σ q log softmax, and
    softmax - q. Rows whose target is -100 give nothing. One tensor of that size where autograd keeps three.
    """
    gradient = torch.empty_like(logits)
    total = torch.zeros((), device=logits.device)
    rows = ROWS if logits.is_cpu else len(logits)  # few at a time stay in a processor's cache
    for given, wanted, out in zip(logits.split(rows), targets.split(rows), gradient.split(rows), strict=True):
        real = wanted != IGNORED
        at = torch.arange(len(wanted), device=logits.device), wanted.clamp(min=0)
        logarithms = given.log_softmax(-1, dtype=torch.float32)
        loss = -(1 - smoothing) * logarithms[at]
        if smoothing:
            loss -= smoothing * logarithms.mean(-1)
        total += loss[real].sum()
        softmax = logarithms.exp_()
        if smoothing:
            softmax -= smoothing / logits.shape[-1]
        softmax[at] -= 1 - smoothing
        softmax[~real] = 0
        out.copy_(softmax.mul_(scale))  # rounded once
    return total, gradient
