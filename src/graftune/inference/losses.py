"""The losses of a batch's rows, computed where there are targets and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graftune.model.adapted import AdaptedModel
from graftune.tasks.batches import IGNORED
from graftune.tasks.bound import Batch, BoundTask

CHUNK_BYTES = 2**25  # of logits at a time
ROWS = 32  # chunks are multiples of it: a product of a new shape has to be prepared first


def mean(sums: Tensor, counts: Tensor) -> float:
    """Σ_k sums[k] / counts[k], both (terms,): the mean loss; a term without a count, which has no sum, counts 1."""
    return float((sums / torch.where(counts == 0, 1.0, counts)).sum())


def batch_losses(
    model: AdaptedModel,
    adapter: str | None,
    task: BoundTask,
    batch: Batch,
    *,
    smoothing: float = 0.0,
    totals: Tensor | None = None,
) -> Tensor:
    """The summed losses of each row of ``batch``, float32 (rows, terms), without a graph.

    With ``totals`` (terms,), the counts of a whole step, the gradient of Σ_k sums[:, k].sum() / totals[k] has been
    added to the trained parameters by the time it returns.
    """
    targets = task.next_tokens(batch)
    if targets is not None:
        hidden = model.hidden(**task.model_inputs(batch), adapters=adapter)
        total = None if totals is None else float(totals.sum())
        return _over_vocabulary(model, hidden, targets, smoothing, total)
    losses = task.losses(task.outputs(model, batch, adapter), batch, smoothing)
    if totals is not None:
        (losses.sum(0) / torch.where(totals == 0, 1.0, totals).to(losses.device)).sum().backward()
    return losses.detach()


def _over_vocabulary(
    model: AdaptedModel, hidden: Tensor, targets: Tensor, smoothing: float, total: float | None
) -> Tensor:
    """The summed losses (B, 1) of hidden states (B, T, d) whose next tokens are ``targets`` (B, T).

    The logits are made for a few positions at a time, and each time sent back at once: no more of them are ever
    held. What they say about the hidden states goes down the base together.
    """
    train = total is not None
    chosen = targets != IGNORED
    rows = chosen.nonzero()[:, 0]  # of each target
    states, wanted = hidden[chosen], targets[chosen]  # (n, d), (n,)
    padding = -len(wanted) % ROWS
    padded = nn.functional.pad(states, (0, 0, 0, padding))
    wanted = nn.functional.pad(wanted, (0, padding), value=IGNORED)
    leaves = padded.detach().requires_grad_(train and hidden.requires_grad)
    bytes_a_row = hidden.element_size() * model.base.get_input_embeddings().weight.shape[0]
    chunk = max(1, CHUNK_BYTES // (bytes_a_row * ROWS)) * ROWS
    each: list[Tensor] = []
    with torch.set_grad_enabled(train):
        for part, labels in zip(leaves.split(chunk), wanted.split(chunk), strict=True):
            logits = model.score(part)
            losses, gradient = _cross_entropy(logits.detach(), labels, smoothing, 1 / total if total else 0.0)
            each.append(losses)
            if train and logits.requires_grad:
                logits.backward(gradient)
    if leaves.grad is not None:
        padded.backward(leaves.grad)
    losses = torch.cat(each)[: len(rows)] if each else hidden.new_zeros(0, dtype=torch.float32)
    return torch.zeros(len(targets), device=hidden.device).index_add(0, rows, losses)[:, None]


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The cross-entropy (n,) of logits (n, V), in float32, and ``scale`` times the gradient of their sum, as logits.

    With q the targets' distribution, (1 - s) on the target and s/V everywhere: -Σ q log softmax, and
    softmax - q. Rows whose target is -100 give nothing. One tensor of that size where autograd keeps three.
    """
    gradient = torch.empty_like(logits)
    losses: list[Tensor] = []
    rows = ROWS if logits.is_cpu else max(1, len(logits))  # few at a time stay in a processor's cache
    for given, wanted, out in zip(logits.split(rows), targets.split(rows), gradient.split(rows), strict=True):
        real = wanted != IGNORED
        at = torch.arange(len(wanted), device=logits.device), wanted.clamp(min=0)
        logarithms = given.log_softmax(-1, dtype=torch.float32)
        loss = -(1 - smoothing) * logarithms[at]
        if smoothing:
            loss -= smoothing * logarithms.mean(-1)
        losses.append(loss * real)
        softmax = logarithms.exp_()
        if smoothing:
            softmax -= smoothing / logits.shape[-1]
        softmax[at] -= 1 - smoothing
        softmax[~real] = 0
        out.copy_(softmax.mul_(scale))  # rounded once
    return torch.cat(losses), gradient
