"""The loss of a batch, computed where it has targets and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.model.adapted import AdaptedModel
from graftune.tasks.batches import IGNORED
from graftune.tasks.task import Task

CHUNK_BYTES = 2**24  # of float32 logits at a time


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
        loss = task.loss(model(**task.inputs(batch), adapters=adapter), batch, smoothing)
        if share is not None:
            (loss * share).backward()
        return loss.detach()
    hidden = model.hidden(**task.inputs(batch), adapters=adapter)
    chosen = answers != IGNORED
    return _over_vocabulary(model, hidden[chosen], answers[chosen], smoothing, share)


def _over_vocabulary(
    model: AdaptedModel, hidden: Tensor, answers: Tensor, smoothing: float, share: float | None
) -> Tensor:
    """The mean loss of hidden states (n, d) whose next tokens are ``answers`` (n,).

    The logits are made for a few positions at a time, and each time sent back at once: no more of them are ever
    held. What they say about the hidden states goes down the trunk together.
    """
    train = share is not None
    states = hidden.detach().requires_grad_(train and hidden.requires_grad)
    rows = max(1, CHUNK_BYTES // (4 * model.base.get_input_embeddings().weight.shape[0]))
    total = torch.zeros((), device=hidden.device)
    with torch.set_grad_enabled(train):
        for part, targets in zip(states.split(rows), answers.split(rows), strict=True):
            logits = model.score(part).float()
            loss = cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing) / len(answers)
            if share is not None and loss.requires_grad:
                (loss * share).backward()
            total += loss.detach()
    if states.grad is not None:
        hidden.backward(states.grad)
    return total
