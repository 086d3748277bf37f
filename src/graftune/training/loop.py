"""The training loop: one adapter on a frozen base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from graftune.errors import GraftuneError
from graftune.inference.evaluation import mean_over
from graftune.inference.running import evaluating
from graftune.model.adapted import AdaptedModel
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import Features
from graftune.training import distributed, state
from graftune.training.batching import Batches
from graftune.training.budget import Budget
from graftune.training.interrupt import held_interrupt
from graftune.training.state import Log, Progress
from graftune.training.step import Step, StepResult
from graftune.training.trunk_cache import TrunkCache

LOG = "log.jsonl"


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


def fit(
    model: AdaptedModel,
    name: str,
    task: BoundTask,
    features: Sequence[Features],
    held_out: Sequence[Features],
    budget: Budget,
    *,
    watch: Watch,
    say: Callable[[str], None] = lambda _: None,
    folder: Path | None = None,
    resume: bool = False,
) -> Progress:
    """Train the adapter ``name`` for ``budget.steps`` steps of AdamW.

    ``held_out`` gives the evaluation points of the curve. ``folder`` gets the log, a line per step, and a
    checkpoint every ``checkpoint_every`` steps and on Ctrl-C; ``resume`` goes on from the last good one.
    Raises GraftuneError when the loss or its gradient is no longer a number.
    """
    step = Step(model, name, task, budget)
    batches = Batches(len(features), budget.batch_size, budget.seed)
    progress, best = Progress(), dict[str, Tensor]()
    if resume and folder is not None:
        progress, best = state.load(folder, step.adapter, step.optimizer, say)
        distributed.agree("checkpoint", progress.step)
    if not distributed.first():
        folder = None
    log = Log(None if folder is None else folder / LOG, progress.curve)
    model.train()
    began, before = time.monotonic(), progress.seconds
    # Worth it where rows are seen more than once; in lockstep no process may compute a row that others have kept.
    # Features on the disk are too many to be known by their tokens in memory.
    again = budget.steps > batches.per_epoch and not step.lockstep and isinstance(features, list)
    with held_interrupt() as interrupted, _trunk(step, features if again else [], say) as step.trunk:
        given_up = _given_up(progress, budget)
        while progress.step < budget.steps and not given_up:
            done = step(progress.step, [features[i] for i in batches[progress.step]])
            rate = budget.rate(progress.step)
            progress.step += 1
            _check(done, progress.step)
            progress.tokens += done.tokens
            progress.seconds = before + time.monotonic() - began
            eval_loss = None
            if held_out and (progress.step % budget.eval_every == 0 or progress.step == budget.steps):
                paused = time.monotonic()
                eval_loss = _loss_on(held_out, step)
                began += time.monotonic() - paused  # evaluation is not training time
            point = {"step": progress.step, "loss": done.loss, "eval_loss": eval_loss}
            progress.curve.append(point)
            log.add(point)
            if eval_loss is not None and budget.watches_best:
                given_up = _given_up(progress, budget)
                if progress.best == progress.step:
                    best = {n: p.detach().clone() for n, p in step.adapter.named_parameters()}
            stopped = distributed.anywhere(interrupted(), model.device)
            if folder is not None and (progress.step % budget.checkpoint_every == 0 or stopped):
                state.save(folder, step.adapter, step.optimizer, progress, best)
            if stopped:
                raise KeyboardInterrupt
            speed = progress.tokens / max(progress.seconds, 1e-9)
            watch(Report(progress.step, budget.steps, done.loss, rate, speed, eval_loss))
    if best and progress.best != progress.step:
        progress.last = {name: tensor.detach().clone() for name, tensor in step.adapter.named_parameters()}
        state.restore(step.adapter, best)
    model.eval()
    return progress


@contextmanager
def _trunk(step: Step, features: Sequence[Features], say: Callable[[str], None]) -> Iterator[TrunkCache | None]:
    """Within the block, what the frozen layers make of ``features`` is kept, where there are such layers."""
    bounds = step.budget.trunk_cache
    cache = TrunkCache.of(step.model, step.name, step.task, *bounds) if bounds and features else None
    if cache is None:
        yield None
        return
    try:
        cache.fill(features)
        layers = f"{cache.trunk.depth} of {len(step.model.anatomy.layers)}"
        say(f"the lowest {layers} layers are frozen: their output is computed once ({cache.bytes / 2**20:,.0f} MiB)")
        yield cache
    finally:
        cache.close()


def _loss_on(features: Sequence[Features], step: Step) -> float:
    """The adapter's loss on rows that it is not trained on."""
    with evaluating(step.model):
        return mean_over(step.model, step.task, features, step.name, 2 * step.budget.batch_size)


def _given_up(progress: Progress, budget: Budget) -> bool:
    """Whether the evaluation loss has not fallen for as long as was to be waited."""
    return budget.patience is not None and progress.waited >= budget.patience


def _check(done: StepResult, step: int) -> None:
    if not (math.isfinite(done.loss) and math.isfinite(done.norm)):
        raise GraftuneError(
            f"the loss is no longer a number at step {step}",
            received=f"loss {done.loss}, gradient norm {done.norm}",
            expected="finite numbers",
            do="lower the learning rate (--lr)",
        )
