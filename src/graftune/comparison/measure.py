"""Measurements that a comparison rests on: peak memory and inference time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from graftune.inference.timing import timing_call
from graftune.templates.template import Template
from graftune.training.allocator import give_back_freed_memory
from graftune.training.prepare import Experiment
from graftune.training.trained import TrainedAdapter

PAGE = 4096  # bytes

#: What inference is timed on.
TIMED_ROWS = 8


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


def in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int = 3) -> tuple[float, float]:
    """Median seconds of two functions run in turns, after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for function, kept in zip((first, second), times, strict=True):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                kept.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def inference(trained: TrainedAdapter, experiment: Experiment) -> tuple[float, float]:
    """Seconds per example with the adapter and without it, in turns, on the same rows.

    Generation writes the same number of tokens on both sides; other tasks run one forward pass. The base gets
    the task's own template: what a method puts around the input is part of its cost.
    """
    task = experiment.task
    rows = experiment.tables.eval.rows[:TIMED_ROWS]
    templates = (trained.encoder.template, Template(task.task.template))
    names = (trained.name, None)
    own, plain = (timing_call(trained.model, task, rows, *each) for each in zip(templates, names, strict=True))
    mine, base = in_turns(lambda: own(trained.name), lambda: plain(None))
    return mine / len(rows), base / len(rows)
