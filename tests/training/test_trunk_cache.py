"""The frozen-trunk cache: the same training, with the frozen layers run once."""

from __future__ import annotations

import pytest
import torch

from graftune.methods.method import make
from graftune.model.trunk import Trunk
from training.tiny import log, same, small, tensors

METHODS = {
    "freeze": small("freeze"),
    "lora": make("lora", rank=2, last=1),
    "houlsby": make("houlsby", bottleneck=4, last=1),
}
CELLS = [(base, task) for base, task in (("llama", "generate"), ("gpt2", "classify"), ("bert", "classify"))]


@pytest.fixture
def calls(monkeypatch):
    """The batches that went through the frozen layers."""
    seen: list[torch.Size] = []
    real = Trunk.__call__

    def counted(self, inputs):
        seen.append(inputs["input_ids"].shape)
        return real(self, inputs)

    monkeypatch.setattr(Trunk, "__call__", counted)
    return seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("base", "task"), CELLS)
@pytest.mark.parametrize("bounds", [(2.0, 8.0), (0.0, 8.0), (1e-6, 2e-6), (0.0, 0.0)], ids=str)
def test_the_losses_are_those_without_it(toys, tmp_path, base, task, method, bounds):
    options = {"task": task, "base": base, "epochs": 3, "eval_every": 2, "lr": 1e-2}
    kept = {"cache_memory": bounds[0], "cache_disk": bounds[1]}
    toys.train(tmp_path / "with", METHODS[method], **options, **kept)
    toys.train(tmp_path / "without", METHODS[method], **options, cache_trunk=False)
    for mine, plain in zip(log(tmp_path / "with"), log(tmp_path / "without"), strict=True):
        assert mine["loss"] == pytest.approx(plain["loss"], rel=2e-4), mine["step"]
    assert set(tensors(tmp_path / "with")) == set(tensors(tmp_path / "without"))


def test_each_row_goes_through_the_frozen_layers_once(toys, tmp_path, calls):
    said: list[str] = []
    toys.train(tmp_path, "freeze", task="classify", base="bert", epochs=4, say=said.append)
    assert sum(rows for rows, _ in calls) == 24 + 1  # and one to see what states look like
    assert any("the lowest 1 of 2 layers are frozen" in line for line in said)


def test_rows_of_the_same_tokens_share_their_states(toys, tmp_path, calls):
    toys.train(tmp_path, "freeze", epochs=4)  # 12 rows, of which 3 are different
    assert sum(rows for rows, _ in calls) == 3 + 1


@pytest.mark.parametrize(
    ("method", "options"),
    [("freeze", {"epochs": 1}), ("lora", {"epochs": 3}), ("prompt", {"epochs": 3}), ("freeze", {"max_steps": 2})],
)
def test_nothing_is_kept_where_it_would_not_help(toys, tmp_path, calls, method, options):
    toys.train(tmp_path, method, **options)
    assert not calls


@pytest.mark.parametrize("bounds", [(2.0, 8.0), (1e-6, 1e-6)], ids=str)
def test_a_resumed_run_is_bit_identical(toys, tmp_path, bounds):
    options = {"epochs": 3, "checkpoint_every": 2, "cache_memory": bounds[0], "cache_disk": bounds[1]}

    def killed(report):
        if report.step == 5:
            raise RuntimeError

    toys.train(tmp_path / "whole", "freeze", **options)
    with pytest.raises(RuntimeError):
        toys.train(tmp_path / "cut", "freeze", **options, watch=killed)
    toys.train(tmp_path / "cut", "freeze", **options, resume=True)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
