"""The training loop: short windows first, long ones while the rate decays; resumable at every checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pretraining.architectures import CONTEXT, Architecture
from pretraining.heldout import Figures
from pretraining.objectives import Question
from pretraining.text import Corpus

DECAY = 0.4  # the share of the steps in which the rate falls to zero

#: Ids (rows, length), progress in [0, 1) and the step's generator -> what the model is asked.
Ask = Callable[[Tensor, float, torch.Generator], Question]


@dataclass(frozen=True)
class Plan:
    """How long and how fast. A step reads ``blocks`` blocks of 512 tokens, cut into windows."""

    tokens: float
    blocks: int
    lr: float
    windows: tuple[int, int]  # before and during the decay
    seed: int
    every: int  # steps between checkpoints

    @property
    def steps(self) -> int:
        """Number of steps."""
        return int(self.tokens / (self.blocks * CONTEXT))

    def window(self, progress: float) -> int:
        """Tokens a window at this point."""
        return self.windows[progress >= 1 - DECAY]

    def rate(self, progress: float) -> float:
        """Trapezoid: 2 % warm-up, constant, linear decay to zero."""
        return self.lr * min(1.0, progress / 0.02, (1.0 - progress) / DECAY)


def optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers; AdamW for embeddings, norms and biases."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in tables]
    others = [p for p in model.parameters() if p.dim() != 2 or id(p) in tables]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def rows(corpus: Corpus, plan: Plan, step: int) -> Tensor:
    """The windows of one step, int64 (rows, window): every block once before any comes again."""
    blocks = len(corpus.train) // CONTEXT
    first = step * plan.blocks
    order = np.random.default_rng((plan.seed, first // blocks)).permutation(blocks)
    chosen = [int(order[(first + i) % blocks]) for i in range(plan.blocks)]
    ids = np.stack([corpus.train[b * CONTEXT : (b + 1) * CONTEXT] for b in chosen]).astype(np.int64)
    return torch.from_numpy(ids.reshape(-1, plan.window(step / plan.steps)))


def train(
    model: Architecture,
    corpus: Corpus,
    plan: Plan,
    ask: Ask,
    evaluate: Callable[[float], Figures],
    checkpoint: Path,
) -> list[dict[str, Any]]:
    """Train to the end of the plan, from the checkpoint where there is one; the curve.

    ``evaluate`` gives the held-out figures at a point of progress.
    """
    device = model.model.device
    model.model.train()
    both = optimizers(model.model, plan.lr)
    first = 0
    curve: list[dict[str, Any]] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.model.load_state_dict(state["model"])
        for optimizer, saved in zip(both, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, curve = state["step"], state["curve"]
        typer.echo(f"resumed at step {first}")
    began = time.monotonic()
    for step in range(first, plan.steps):
        progress = step / plan.steps
        question = ask(rows(corpus, plan, step).to(device), progress, torch.Generator().manual_seed(step))
        with torch.autocast(device.type, torch.bfloat16):
            logits = model.head(model.hidden(question.ids)[question.at])
        loss = cross_entropy(logits.float(), question.answers)
        loss.backward()
        nn.utils.clip_grad_norm_(model.model.parameters(), 1.0)
        for optimizer in both:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(max(progress, 1e-4))
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            speed = (step - first + 1) * plan.blocks * CONTEXT / (time.monotonic() - began)
            typer.echo(f"step {step}/{plan.steps} loss {loss.item():.3f} {speed:.0f} tokens/s")
        if (step + 1) % plan.every == 0 or step + 1 == plan.steps:
            # Evaluated as it is: a graph compiled for other shapes would cost more than it saves.
            with torch.compiler.set_stance("force_eager"), torch.autocast(device.type, torch.bfloat16):
                figures = evaluate(progress)
            curve.append({"step": step + 1, "loss": round(loss.item(), 4), **figures})
            typer.echo(f"held out: {curve[-1]}")
            states = [optimizer.state_dict() for optimizer in both]
            state = {"model": model.model.state_dict(), "optimizers": states, "step": step + 1, "curve": curve}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
    return curve
