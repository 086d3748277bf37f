"""The energy counters of a machine: RAPL for its processors, NVML for its GPUs.

Where only root may read the processors, `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` opens them to
every user until the machine restarts.
"""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path

import torch

#: How often the processors are read: their counters may start again at zero after some minutes of full load.
EVERY_SECONDS = 30.0


class Processors:
    """Adds up what all packages use, in microjoules; stays at 0 if one cannot be read, so that no half is shown."""

    def __init__(self, root: Path) -> None:
        self.used = 0
        self.last: dict[Path, int] = {}
        # Left out: intel-rapl:N:M is a part of a package, psys holds them all, intel-rapl-mmio shows them once more.
        zones = [zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1]
        try:
            zones = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
            self.ranges = {zone: int((zone / "max_energy_range_uj").read_text()) for zone in zones}
            self.last = {zone: int((zone / "energy_uj").read_text()) for zone in zones}
        except (OSError, ValueError):
            return

    def read(self) -> int:
        """What was used since the start. A counter below its last value has started again at zero, once."""
        try:
            for zone, before in self.last.items():
                self.last[zone] = now = int((zone / "energy_uj").read_text())
                self.used += now - before + (self.ranges[zone] if now < before else 0)
        except (OSError, ValueError):
            self.last, self.used = {}, 0
        return self.used

    def keep_reading(self, end: threading.Event) -> None:
        """Read again and again until the end, so that no new start of a counter is missed."""
        while self.last and not end.wait(EVERY_SECONDS):
            self.read()


def gpu_millijoules() -> int:
    """Since the driver was loaded, of all GPUs this process sees; 0 if there is none or one does not tell."""
    gpus = range(torch.cuda.device_count())
    if not gpus:
        return 0
    try:
        nvml = import_module("pynvml")
        counter = nvml.nvmlDeviceGetTotalEnergyConsumption  # very old packages lack it
    except (ImportError, AttributeError):
        return 0
    try:
        nvml.nvmlInit()
        try:
            # NVML numbers all GPUs of the machine, torch only those it may use: the UUID is the same for both.
            names = [f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in gpus]
            return sum(int(counter(nvml.nvmlDeviceGetHandleByUUID(name))) for name in names)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return 0
