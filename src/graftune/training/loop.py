"""The training loop: one adapter on a frozen base."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks.task import Features, Task, evaluating, pad_id, to_device
from graftune.training import state
from graftune.training.batching import Batches
from graftune.training.state import Log, Progress

CHECKPOINT = "checkpoint"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    clip: float
    seed: int
    eval_every: int
    checkpoint_every: int | None = None


@dataclass(frozen=True)
class Report:
    """One finished step, for whoever watches. Rates count the tokens of the rows, without padding."""

    step: int
    steps: int
    loss: float
    lr: float
    tokens_per_second: float
    eval_loss: float | None = None


Watch = Callable[[Report], None]


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate: linear warm-up, then linear decay to zero."""
    rising = max(1, round(warmup * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising + 1))


def mean_loss(
    model: AdaptedModel, name: str | None, task: Task, features: Sequence[Features], pad: int, batch_size: int
) -> float:
    """The loss over features, weighted by their targets."""
    total = weight = 0.0
    with evaluating(model):
        for start in range(0, len(features), batch_size):
            batch = to_device(task.collate(features[start : start + batch_size], pad), model)
            targets = int((batch["labels"] != -100).sum())
            total += task.loss(model(**task.inputs(batch), adapters=name), batch).item() * targets
            weight += targets
    return total / weight


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step: in the middle of one there is no state to go on from.

    Yields a function that tells whether it was pressed; pressed again, it stops the block at once.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may set a handler, and an ignored signal stays ignored.
    held = threading.current_thread() is threading.main_thread() and callable(before)
    if held:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        if held:
            signal.signal(signal.SIGINT, before)


def _optimizer(parameters: Sequence[torch.nn.Parameter], budget: Budget) -> torch.optim.Optimizer:
    """AdamW; vectors and biases are not decayed, as everywhere in the field."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=budget.lr, fused=True)


def fit(
    model: AdaptedModel,
    name: str,
    task: Task,
    features: Sequence[Features],
    held_out: Sequence[Features],
    tokenizer: object,
    budget: Budget,
    *,
    watch: Watch,
    folder: Path | None = None,
    resume: bool = False,
) -> Progress:
    """Train the adapter ``name`` for ``budget.steps`` steps of AdamW.

    ``held_out`` gives the evaluation points of the curve. ``folder`` gets the log, a line per step, and a
    checkpoint every ``checkpoint_every`` steps and on Ctrl-C; ``resume`` goes on from that.
    Raises GraftuneError when the loss or its gradient is no longer a number.
    """
    parameters = model.parameters_of(name)
    adapter = model.adapter(name)
    optimizer = _optimizer(parameters, budget)
    batches = Batches([len(f.ids) for f in features], budget.batch_size, budget.seed)
    padding = model.config.get_text_config().pad_token_id
    pad = pad_id(tokenizer) if padding is None else padding
    torch.manual_seed(budget.seed)
    progress = Progress()
    checkpoint = None if folder is None else folder / CHECKPOINT
    if resume and checkpoint is not None and checkpoint.exists():
        progress = state.load(checkpoint, adapter, optimizer)
    log = Log(None if folder is None else folder / LOG, progress.curve)
    model.train()
    began, before = time.monotonic(), progress.seconds
    with held_interrupt() as interrupted:
        while progress.step < budget.steps:
            step = progress.step
            rate = budget.lr * schedule(step, budget.steps, budget.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = to_device(task.collate([features[i] for i in batches[step]], pad), model)
            loss = task.loss(model(**task.inputs(batch), adapters=name), batch)
            value = loss.item()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, budget.clip)
            if not (math.isfinite(value) and torch.isfinite(norm)):
                raise GraftuneError(
                    f"the loss is no longer a number at step {step + 1}",
                    received=f"loss {value}, gradient norm {norm.item()}",
                    expected="finite numbers",
                    do="lower the learning rate (--lr)",
                )
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            progress.tokens += int(batch["attention_mask"].sum())
            progress.seconds = before + time.monotonic() - began
            eval_loss = None
            if held_out and (progress.step % budget.eval_every == 0 or progress.step == budget.steps):
                paused = time.monotonic()
                eval_loss = mean_loss(model, name, task, held_out, pad, 2 * budget.batch_size)
                began += time.monotonic() - paused  # evaluation is not training time
            point = {"step": progress.step, "loss": value, "eval_loss": eval_loss}
            progress.curve.append(point)
            log.add(point)
            stop = interrupted()
            due = budget.checkpoint_every and progress.step % budget.checkpoint_every == 0
            if checkpoint is not None and (due or stop):
                state.save(checkpoint, adapter, optimizer, progress)
            if stop:
                raise KeyboardInterrupt
            speed = progress.tokens / max(progress.seconds, 1e-9)
            watch(Report(progress.step, budget.steps, value, rate, speed, eval_loss))
    model.eval()
    return progress
