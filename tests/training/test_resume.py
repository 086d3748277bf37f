"""A run killed at any step and started again is the run that was never killed."""

from __future__ import annotations

import json

import pytest
import torch

from graftune.errors import GraftuneError
from training.tiny import contradictions, log, same, small, tensors

METHODS = {
    "lora": small("lora", dropout=0.2),  # its dropout needs the random state
    "prefix": small("prefix"),
    "p-tuning": small("p-tuning"),
    "prompt": small("prompt"),
    "houlsby": small("houlsby"),
    "freeze": small("freeze"),
    "full": small("full"),
}


class Killed(Exception):
    pass


def kill_at(step):
    def watch(report):
        if report.step == step:
            raise Killed

    return watch


@pytest.mark.parametrize("name", METHODS)
def test_resumed_is_the_same_as_never_killed(toys, tmp_path, name):
    options = {"checkpoint_every": 2, "eval_every": 2, "warmup": 0.5}
    whole = toys.train(tmp_path / "whole", METHODS[name], **options)
    with pytest.raises(Killed):
        toys.train(tmp_path / "cut", METHODS[name], **options, watch=kill_at(5))
    assert len(log(tmp_path / "cut")) == 5
    torch.manual_seed(99)  # whatever happened in between
    resumed = toys.train(tmp_path / "cut", METHODS[name], **options, resume=True)
    assert resumed.progress.curve == whole.progress.curve == log(tmp_path / "cut")
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
    assert resumed.metrics == whole.metrics


def test_a_head_resumes_too(toys, tmp_path):
    options = {"task": "classify", "base": "bert", "checkpoint_every": 3}
    toys.train(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        toys.train(tmp_path / "cut", **options, watch=kill_at(3))
    toys.train(tmp_path / "cut", **options, resume=True)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))


def test_killed_before_the_first_checkpoint_starts_again(toys, tmp_path):
    toys.train(tmp_path / "whole")
    with pytest.raises(Killed):
        toys.train(tmp_path / "cut", watch=kill_at(2))
    toys.train(tmp_path / "cut", resume=True)
    assert log(tmp_path / "cut") == log(tmp_path / "whole")
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))


def test_interrupted_is_resumed(toys, tmp_path):
    def interrupt(report):
        if report.step == 2:
            raise KeyboardInterrupt

    toys.train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        toys.train(tmp_path / "cut", watch=interrupt)
    toys.train(tmp_path / "cut", resume=True)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))


def test_a_folder_with_a_run_is_not_overwritten(toys, tmp_path):
    toys.train(tmp_path, max_steps=2)
    before = tensors(tmp_path)
    with pytest.raises(GraftuneError, match="already holds a run"):
        toys.train(tmp_path, max_steps=2, seed=5)
    with pytest.raises(GraftuneError, match="holds a run of another recipe"):
        toys.train(tmp_path, max_steps=3, resume=True)
    assert same(tensors(tmp_path), before)


DAMAGES = {
    "cut": lambda folder: (folder / "state.safetensors").write_bytes(b"cut"),
    "flipped": lambda folder: flip(folder / "state.safetensors"),
    "half a record": lambda folder: (folder / "state.json").write_text('{"step": 2'),
    "another record": lambda folder: (folder / "state.json").write_text('{"stap": 2}'),
    "gone": lambda folder: (folder / "state.safetensors").unlink(),
}


def flip(path):
    """Change one bit in the middle of a file: nothing but a checksum finds it."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(toys, tmp_path, damage):
    toys.train(tmp_path / "whole", checkpoint_every=2)
    with pytest.raises(Killed):
        toys.train(tmp_path / "cut", checkpoint_every=2, watch=kill_at(5))
    DAMAGES[damage](tmp_path / "cut" / "checkpoints" / "step-00000004")
    said: list[str] = []
    toys.train(tmp_path / "cut", checkpoint_every=2, resume=True, say=said.append)
    assert any("step-00000004 is damaged" in line for line in said)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))


def test_without_a_good_checkpoint_the_run_says_so(toys, tmp_path):
    with pytest.raises(Killed):
        toys.train(tmp_path, checkpoint_every=2, watch=kill_at(5))
    for folder in (tmp_path / "checkpoints").iterdir():
        flip(folder / "state.safetensors")
    with pytest.raises(GraftuneError, match=r"no checkpoint in [\s\S]*2 damaged[\s\S]*delete that folder"):
        toys.train(tmp_path, checkpoint_every=2, resume=True)


def test_a_checkpoint_holds_no_pickle(toys, tmp_path):
    with pytest.raises(Killed):
        toys.train(tmp_path, checkpoint_every=2, watch=kill_at(2))
    folder = tmp_path / "checkpoints" / "step-00000002"
    assert sorted(file.name for file in folder.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((folder / "state.json").read_text())["step"] == 2


def test_a_finished_run_is_not_trained_again(toys, tmp_path):
    first = toys.train(tmp_path, checkpoint_every=3)
    before = (tmp_path / "adapter" / "adapter.safetensors").stat().st_mtime_ns
    said: list[str] = []
    again = toys.train(tmp_path, checkpoint_every=3, resume=True, say=said.append)
    assert again.metrics == first.metrics
    assert again.count == first.count
    assert again.progress.curve == first.progress.curve
    assert (tmp_path / "adapter" / "adapter.safetensors").stat().st_mtime_ns == before
    assert any("finished" in line for line in said)


def test_the_best_adapter_is_remembered_over_a_kill(toys, tmp_path):
    options = {"lr": 0.05, "max_steps": 40, "eval_every": 1, "checkpoint_every": 1, "keep_best": True}
    options["eval"] = contradictions(tmp_path)
    whole = toys.train(tmp_path / "whole", **options)
    best = whole.progress.best
    assert best < 37, "the kill has to come after it"
    with pytest.raises(Killed):
        toys.train(tmp_path / "cut", **options, watch=kill_at(38))
    toys.train(tmp_path / "cut", **options, resume=True)
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))
