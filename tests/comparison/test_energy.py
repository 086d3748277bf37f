"""Energy: counters on made-up machines worked out by hand, and the estimate against CPU time really burnt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from graftune.comparison import counters
from graftune.comparison.energy import measured
from graftune.errors import GraftuneError

RANGE = 262_143_328_850
BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
BURN_AND_WAIT = BURN + "print(flush=True)\ninput()"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The machine that runs the tests may have GPUs: none is seen unless a test brings its own."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def burn(seconds: float = 0.3) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def zone(root: Path, path: str, name: str, microjoules: int) -> Path:
    """A folder as Linux makes it; gives the file with the counter."""
    folder = root / path
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    put(folder / "energy_uj", microjoules)
    return folder / "energy_uj"


def put(counter: Path, microjoules: int) -> None:
    """Change a counter at once: whoever reads it meanwhile never sees an empty file."""
    new = counter.with_name("new")
    new.write_text(f"{microjoules}\n")
    os.replace(new, counter)


def spoil(file: Path, how: str) -> None:
    """Make a file one that cannot be read as a number, for root too."""
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how == "words":
        file.write_text("no number")


class FakeNvml:
    """Two GPUs that the machine numbers the other way round than torch, and a third that torch does not see."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.open = 0
        self.fails = False
        self.millijoules = {"GPU-c": 7_000_000, "GPU-b": 2_000, "GPU-a": 1_000}

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, name):
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.fails or not self.open:
            raise self.NVMLError
        return self.millijoules[handle]


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(uuid="ab"[gpu]))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_estimate_is_the_cpu_time_burnt_times_the_watts(tmp_path):
    with measured(watts_per_core=5.0, powercap=tmp_path / "none") as meter:
        burn()
        time.sleep(0.2)
    energy = meter.energy
    assert 0.29 <= energy.cpu_seconds <= 0.45  # sleeping costs nothing
    assert energy.seconds >= 0.49
    assert energy.joules == energy.cpu_seconds * 5.0
    assert energy.source == "estimate"
    assert energy.basis == "estimate: CPU-seconds x 5 W per core, an assumption"


def test_block_that_raises_is_measured_and_its_error_goes_on(tmp_path):
    meters = []

    def fails() -> None:
        with measured(powercap=tmp_path) as meter:
            meters.append(meter)
            burn(0.1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()
    meter = meters[0]
    assert meter.energy.cpu_seconds >= 0.09
    assert meter.energy.joules == meter.energy.cpu_seconds * 4.0


def test_child_that_ended_is_counted(tmp_path):
    own = time.process_time()
    with measured(powercap=tmp_path) as meter:
        subprocess.run([sys.executable, "-c", BURN], check=True)
    assert meter.energy.cpu_seconds - (time.process_time() - own) >= 0.27


def test_child_counts_only_for_what_it_did_in_the_block(tmp_path):
    with measured(powercap=tmp_path) as first:
        child = subprocess.Popen([sys.executable, "-c", BURN_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
    with measured(powercap=tmp_path) as second:
        child.communicate(b"\n")
    assert first.energy.cpu_seconds >= 0.27  # it still ran
    assert 0 <= second.energy.cpu_seconds <= 0.2  # it was reaped, with all it had burnt before


def test_what_a_running_child_has_reaped_is_counted(tmp_path):
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint(flush=True)\ninput()"
    with measured(powercap=tmp_path) as meter:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
    child.communicate(b"\n")
    assert meter.energy.cpu_seconds >= 0.27


def test_packages_are_added_and_nothing_is_counted_twice(tmp_path):
    one = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    two = zone(tmp_path, "intel-rapl:1", "package-1", 500_000)
    again = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:1:0", "package-1", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    with measured(powercap=tmp_path) as meter:
        put(one, 4_000_000)
        put(two, 2_000_000)
        for counter in again:
            put(counter, 9_000_000)
    assert meter.energy.joules == pytest.approx(3.0 + 1.5)
    assert meter.energy.source == "rapl"
    assert "whole machine" in meter.energy.basis and "assumption" not in meter.energy.basis


def test_counter_that_starts_again_at_zero(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    with measured(powercap=tmp_path) as meter:
        put(counter, 500_000)
    assert meter.energy.joules == pytest.approx(1.5)


def test_counter_that_starts_again_twice_in_a_long_block(tmp_path, monkeypatch):
    monkeypatch.setattr(counters, "EVERY_SECONDS", 0.005)
    reads = []
    read = counters.Processors.read
    monkeypatch.setattr(counters.Processors, "read", lambda self: reads.append(read(self)) or reads[-1])
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 3_000_000)

    def next_value(microjoules: int, used: int) -> None:
        put(counter, microjoules)
        deadline = time.monotonic() + 10
        while used not in reads and time.monotonic() < deadline:
            time.sleep(0.005)

    with measured(powercap=tmp_path) as meter:
        next_value(2_000_000, RANGE - 1_000_000)
        next_value(1_000_000, 2 * RANGE - 2_000_000)
        put(counter, 1_500_000)
    assert meter.energy.joules == pytest.approx((2 * RANGE - 1_500_000) / 1e6)


@pytest.mark.parametrize("spoilt", ["energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize("how", ["a folder", "words", "gone"])
def test_one_package_that_cannot_be_read_leaves_an_estimate_and_no_half(tmp_path, spoilt, how):
    good = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    spoil(zone(tmp_path, "intel-rapl:1", "package-1", 0).with_name(spoilt), how)
    with measured(powercap=tmp_path) as meter:
        burn(0.05)
        put(good, 9_000_000)
    assert meter.energy.source == "estimate"
    assert 0 < meter.energy.joules == meter.energy.cpu_seconds * 4.0


@pytest.mark.parametrize("how", ["a folder", "words", "gone"])
def test_package_that_can_no_longer_be_read_at_the_end(tmp_path, how):
    good = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    bad = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    with measured(powercap=tmp_path) as meter:
        burn(0.05)
        put(good, 9_000_000)
        spoil(bad, how)
    assert meter.energy.source == "estimate"
    assert 0 < meter.energy.joules == meter.energy.cpu_seconds * 4.0


def test_counter_that_stands_still_is_not_a_zero(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    with measured(powercap=tmp_path) as meter:
        burn(0.05)
    assert meter.energy.source == "estimate"
    assert meter.energy.joules >= 0.05 * 4.0 * 0.9


def test_gpus_in_use_are_added_to_an_estimate_for_the_cpu(tmp_path, nvml):
    with measured(powercap=tmp_path) as meter:
        nvml.millijoules = {"GPU-c": 9_000_000, "GPU-b": 5_000, "GPU-a": 1_500}
    energy = meter.energy
    assert energy.joules == pytest.approx(3.0 + 0.5 + energy.cpu_seconds * 4.0)
    assert energy.source == "nvml"
    assert "for the CPU CPU-seconds x 4 W per core, an assumption" in energy.basis
    assert energy.gpus_left_out == 0
    assert nvml.open == 0  # every nvmlInit has its nvmlShutdown


def test_gpu_work_belongs_to_the_block_that_asked_for_it(tmp_path, nvml, monkeypatch):
    waiting = [5_000]  # millijoules of work that was asked for before the block

    def synchronize() -> None:
        nvml.millijoules["GPU-a"] += sum(waiting)
        waiting.clear()

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with measured(powercap=tmp_path) as meter:
        waiting.append(2_000)
    assert meter.energy.joules == pytest.approx(2.0 + meter.energy.cpu_seconds * 4.0)


def test_processors_and_gpus_together(tmp_path, nvml):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with measured(powercap=tmp_path) as meter:
        put(counter, 2_000_000)
        nvml.millijoules["GPU-a"] += 250
    assert meter.energy.joules == pytest.approx(2.25)
    assert meter.energy.source == "rapl + nvml"
    assert "assumption" not in meter.energy.basis


@pytest.mark.parametrize("fails", ["before", "inside", "never answers", "no package", "old package", "stands still"])
def test_gpus_that_do_not_tell_are_said_to_be_left_out(tmp_path, nvml, monkeypatch, fails):
    nvml.fails = fails in ("before", "never answers")
    if fails == "no package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    if fails == "old package":
        monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=nvml.NVMLError))
    with measured(powercap=tmp_path) as meter:
        if fails != "stands still":
            nvml.millijoules["GPU-a"] += 1_000_000
        nvml.fails = fails in ("inside", "never answers")
    assert meter.energy.joules == meter.energy.cpu_seconds * 4.0
    assert meter.energy.basis == "estimate: CPU-seconds x 4 W per core, an assumption; GPUs not counted: 2"
    assert nvml.open == 0


@pytest.mark.parametrize("watts", [0.0, -1.0, float("nan"), float("inf")])
def test_watts_that_would_make_a_silent_zero_are_refused(watts, tmp_path):
    with pytest.raises(GraftuneError, match="watts per core") as error, measured(watts, tmp_path):
        pass
    assert str(watts) in str(error.value)
