"""What a side reports: seconds a step and memory above the weights."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from graftune.comparison.measure import peak_memory

WARM = 3  # steps that are not counted


class Clock:
    """The time between the ends of successive steps, data loading included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def tick(self) -> None:
        """A step has ended."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """The mean over the steps after the warm-up."""
        return statistics.mean(b - a for a, b in zip(self.ends[WARM - 1 :], self.ends[WARM:], strict=False))


def report(**figures: Any) -> None:
    """Print figures as the last line, where ``processes.side`` looks for them."""
    json.dump({**figures, "threads": torch.get_num_threads()}, sys.stdout)


def run(train: Callable[[], list[float]], clock: Clock) -> None:
    """Run ``train()`` and print what it took."""
    with peak_memory() as peak:
        losses = train()
    resident = psutil.Process().memory_info().rss
    report(seconds=clock.seconds, peak_bytes=peak.bytes, losses=losses, resident=resident)
