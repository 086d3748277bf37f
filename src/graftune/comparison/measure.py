"""Measurements that a comparison rests on: peak memory and inference time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from graftune.inference.timing import timing_call
from graftune.model.adapted import AdaptedModel
from graftune.model.merge import is_exact
from graftune.templates.template import Template
from graftune.training.allocator import give_back_freed_memory
from graftune.training.prepare import Experiment
from graftune.training.trained import TrainedAdapter

PAGE = 4096  # bytes

#: Sizes of a batch that inference is timed with, and how many batches: an answer alone, and many at once.
BATCHES = {1: 2, 32: 1}
ROUNDS, TIMING = 9, 0.5  # how often, and for how many seconds, a quick thing is timed


class Peak:
    """The most memory that was in use above the start of the block, in bytes, or None if unknown."""

    bytes: int | None = None


def _resident_peak() -> int | None:
    """Linux's high-water mark of resident memory since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def touch(base: nn.Module) -> None:
    """Read a value of every page of the weights: those of a file that is mapped come into memory when they are used."""
    for parameter in base.parameters():
        if parameter.device.type == "cpu" and type(parameter.data) is Tensor:
            parameter.detach().flatten()[:: PAGE // parameter.element_size()].sum()


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak above what is held at the start: CUDA's allocator, or resident memory on Linux.

    On the CPU freed memory is first given back to the system, so that the start is what is really held.
    """
    peak = Peak()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - start
        return
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        yield peak
        return
    give_back_freed_memory()
    reset.write_text("5")  # 5 resets the high-water mark
    start = psutil.Process().memory_info().rss
    yield peak
    high = _resident_peak()
    peak.bytes = None if high is None else max(0, high - start)


def in_turns(*functions: Callable[[], object], rounds: int = 3) -> list[float]:
    """Median seconds of each of the functions, run in turns after one warm-up each.

    At least `rounds`, and of quick ones as many as `TIMING` seconds have room for, up to `ROUNDS`.
    """
    times: list[list[float]] = [[] for _ in functions]
    started = time.perf_counter()
    for turn in range(max(rounds, ROUNDS) + 1):
        if turn > rounds and time.perf_counter() - started > TIMING:
            break
        for function, kept in zip(functions, times, strict=True):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                kept.append(time.perf_counter() - began)
    return [statistics.median(kept) for kept in times]


def inference(trained: TrainedAdapter, experiment: Experiment) -> list[dict[str, float | None]]:
    """Seconds per example by size of the batch: `adapter`, `base` without it, and `merged`, in turns on the same rows.

    Generation writes the same number of tokens on all sides; other tasks run one forward pass. The base gets
    the task's own template: what a method puts around the input is part of its cost. `merged` is the base with the
    adapter folded into its weights, None where that is not exact or a second base does not fit into memory.
    """
    task, rows = experiment.task, experiment.tables.eval.rows
    own, plain = trained.encoder.template, Template(task.task.template)
    merged = _merged(trained)
    found: list[dict[str, float | None]] = []
    for size, batches in BATCHES.items():
        groups = [[rows[(start + place) % len(rows)] for place in range(size)] for start in range(batches)]

        def side(model: AdaptedModel, template: Template, name: str | None, groups: Any = groups) -> Callable[[], Any]:
            calls = [timing_call(model, task, group, template, name) for group in groups]
            return lambda: [call(name) for call in calls]

        sides = [side(trained.model, own, trained.name), side(trained.model, plain, None)]
        sides += [side(merged, own, None)] if merged is not None else []
        seconds = dict(zip(("adapter", "base", "merged"), in_turns(*sides, rounds=2), strict=False))
        each = {name: value / (size * batches) for name, value in seconds.items()}
        found.append({"batch": size, "merged": None, **each})
    return found


def _merged(trained: TrainedAdapter) -> AdaptedModel | None:
    """The base with the adapter in its weights, as a model without adapters."""
    adapter, base = trained.model.adapter(trained.name), trained.model.base
    size = sum(parameter.nbytes for parameter in base.parameters())
    if not adapter.parts or not is_exact(adapter) or size > psutil.virtual_memory().available / 2:
        return None
    return AdaptedModel(trained.model.merge(trained.name))
