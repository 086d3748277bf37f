"""A short training in one go, on losses that the caller makes: for bases that are small enough to need no resuming."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import typer
from torch import Tensor, nn

from graftune.training.allocator import keep_freed_memory
from pretraining.loop import optimizers


def begin(threads: int, seed: int) -> None:
    """What every tool does first: threads, seed, and freed memory that stays at hand."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)


def rate(progress: float, warmup: float = 0.05) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    return min(progress / warmup, 0.5 * (1 + np.cos(np.pi * progress)))


def fit(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    steps: int,
    lr: float,
    minutes: float = float("inf"),
    save: Callable[[int], None] = lambda step: None,
    every: int = 250,
) -> float:
    """Train on the losses of steps 0, 1, ...; the seconds it took. ``save`` is called each ``every`` steps and last.

    Where the steps would take longer than ``minutes``, the rate falls faster and reaches zero when they are over.
    """
    both = optimizers(model, lr)
    began = time.monotonic()
    model.train()
    for step in range(steps):
        progress = max((step + 0.5) / steps, (time.monotonic() - began) / 60 / minutes)
        if progress >= 1:
            typer.echo(f"stopped at step {step}: {minutes} minutes are over")
            steps = step
            break
        for group in (group for optimizer in both for group in optimizer.param_groups):
            group["lr"] = lr * rate(progress)
        loss = loss_at(step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            typer.echo(f"step {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - began:.0f} s")
        if (step + 1) % every == 0 and step + 1 < steps:
            save(step + 1)
            model.train()
    seconds = time.monotonic() - began
    save(steps)
    return seconds
