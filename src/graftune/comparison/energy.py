"""Energy of a block of work: from the counters of the machine, or an estimate that says it is one."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from graftune.comparison.counters import Processors, gpu_millijoules
from graftune.errors import GraftuneError

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Energy:
    """What a block of work used. The CPU-seconds are of this process and its children, whatever the source."""

    joules: float
    source: str  # "rapl", "nvml", "rapl + nvml" or "estimate"
    cpu_seconds: float
    seconds: float
    watts_per_core: float
    gpus_left_out: int = 0

    @property
    def basis(self) -> str:
        """What the joules rest on, in words for a report."""
        cpu = f"CPU-seconds x {self.watts_per_core:g} W per core, an assumption"
        words = {
            "rapl": "whole machine: its processors, with idle power and all other programs",
            "nvml": f"whole GPUs, with idle power and all other programs; for the CPU {cpu}",
            "rapl + nvml": "whole machine: its processors and the GPUs in use, with idle power and all other programs",
            "estimate": cpu,
        }[self.source]
        return f"{self.source}: {words}" + (f"; GPUs not counted: {self.gpus_left_out}" if self.gpus_left_out else "")


class Meter:
    """Has the energy once the block has ended."""

    energy: Energy


def _cpu_seconds() -> float:
    """Of this process, of its children that ended, and of those that run, each with the children it has reaped."""
    running = 0.0
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it may end just now
            running += sum(child.cpu_times()[:4])  # user, system, and both of its own children
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + running


@contextmanager
def measured(watts_per_core: float = 4.0, powercap: Path = POWERCAP) -> Iterator[Meter]:
    """Measure what this process and its children use in the block; the meter has it also if the block raises.

    A counter that did not move is none: the estimate takes its place, or a GPU is said to be left out.
    """
    if not 0 < watts_per_core < math.inf:
        raise GraftuneError(
            "the watts per core cannot be used",
            received=watts_per_core,
            expected="a number above 0, such as 4",
            do="divide the power of the processor by its cores, or leave it out",
        )
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.synchronize()
    meter, processors, end = Meter(), Processors(powercap), threading.Event()
    gpus_began = gpu_millijoules()
    reader = threading.Thread(target=processors.keep_reading, args=(end,), daemon=True)
    reader.start()
    cpu_began, began = _cpu_seconds(), time.perf_counter()
    try:
        yield meter
        if gpus:
            torch.cuda.synchronize()  # what the GPU has still to do belongs to the block
    finally:
        seconds, cpu = time.perf_counter() - began, _cpu_seconds() - cpu_began
        gpus_ended = gpu_millijoules()
        end.set()
        reader.join()
        rapl = processors.read() / 1e6
        nvml = (gpus_ended - gpus_began) / 1e3 if gpus_began and gpus_ended else 0.0
        meter.energy = Energy(
            joules=(rapl or cpu * watts_per_core) + nvml,
            source=" + ".join(name for name, joules in (("rapl", rapl), ("nvml", nvml)) if joules) or "estimate",
            cpu_seconds=cpu,
            seconds=seconds,
            watts_per_core=watts_per_core,
            gpus_left_out=0 if nvml else gpus,
        )
