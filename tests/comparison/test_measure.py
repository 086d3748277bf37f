"""Measurements: peak memory above the start, and times in turns."""

from __future__ import annotations

import time

import pytest
import torch

from graftune.comparison import measure
from graftune.comparison.measure import in_turns, peak_memory

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="measures the CUDA allocator instead")


@cpu_only
def test_peak_memory_sees_what_was_freed_again():
    with peak_memory() as peak:
        block = torch.ones(50 * 2**20)  # 200 MiB
        del block
    if peak.bytes is None:
        pytest.skip("this system does not tell")
    assert 190 * 2**20 <= peak.bytes <= 300 * 2**20


@cpu_only
def test_peak_memory_leaves_out_what_was_held_before():
    held = torch.ones(50 * 2**20)
    with peak_memory() as peak:
        held.add_(1)
    assert peak.bytes is None or peak.bytes < 50 * 2**20


def test_in_turns_takes_medians_after_a_warm_up(monkeypatch):
    monkeypatch.setattr(measure, "TIMING", 0.0)
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.5 if len(calls) <= 2 else 0.02)  # the first is the warm-up

    def quick():
        calls.append("quick")

    first, second = in_turns(slow, quick)
    assert calls == ["slow", "quick"] * 4
    assert 0.02 <= first < 0.4
    assert second < first


def test_what_is_quick_is_timed_more_often(monkeypatch):
    calls = []
    in_turns(lambda: calls.append(1))
    assert len(calls) == measure.ROUNDS + 1
    monkeypatch.setattr(measure, "TIMING", 0.05)
    calls.clear()
    in_turns(lambda: calls.append(time.sleep(0.02)))
    assert len(calls) == 4
