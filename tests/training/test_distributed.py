"""Several processes make the run that one process makes, whether each holds the base or they share it out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from graftune.comparison.compare import compare
from graftune.errors import GraftuneError
from graftune.methods.method import make
from graftune.training import distributed
from training.tiny import log, same, tensors
from training.worker import CASES, SHARDED, SHORT, TRAINED, laws

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0")


def launch(launcher, *arguments):
    """Run two processes under a launcher to their end."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


class Pair:
    """What two processes of worker.py wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
        self.laws = {
            shard: [load_file(folder / f"laws-{shard}-{rank}.safetensors") for rank in (0, 1)]
            for shard in (False, True)
        }

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name


@pytest.fixture(scope="module")
def pair(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    (folder / "toys.json").write_text(json.dumps(vars(toys)))
    done = launch(TORCHRUN, Path(__file__).with_name("worker.py"), folder)
    assert done.returncode == 0, done.stderr
    return Pair(folder)


@pytest.fixture(scope="module")
def alone(toys):
    return laws(toys)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", TRAINED)
def test_two_processes_have_the_gradient_of_one(pair, alone, method, case, shard):
    of_this = {name for name in alone if name.startswith(f"{case}|{method}|")}
    assert len(of_this) > 1
    for found in pair.laws[shard]:
        assert {name for name in found if name.startswith(f"{case}|{method}|")} == of_this
        for name in of_this:
            exact = 1e-6 if name.endswith("|loss") else 1e-12  # the loss itself is summed in float32
            size = alone[name].abs().max().item()
            assert torch.allclose(found[name], alone[name], rtol=0, atol=exact * size), name


def test_all_processes_have_the_same_gradient(pair):
    for first, second in pair.laws.values():
        assert same(first, second)


@pytest.mark.parametrize("method", SHARDED)
def test_a_run_of_two_processes_is_the_run_of_one(toys, tmp_path, pair, method):
    one = toys.train(tmp_path, method, **SHORT)
    expected = tensors(tmp_path)
    for shard in (False, True):
        place = pair.run(f"{method}-{shard}")
        found = tensors(place)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-5), name
        losses, theirs = ([p["loss"] for p in curve] for curve in (log(place), one.progress.curve))
        assert losses == pytest.approx(theirs, rel=1e-5)
        assert pair.seen[0]["runs"] == pair.seen[1]["runs"]  # every process is told the metrics
        assert pair.seen[0]["runs"][f"{method}-{shard}"]["loss"] == pytest.approx(one.metrics["loss"], rel=1e-4)


def test_a_sharded_run_goes_with_kernels_and_checkpointing(pair):
    plain, found = tensors(pair.run("lora-False")), tensors(pair.run("lora-checkpointing"))
    assert all(torch.allclose(found[name], plain[name], rtol=1e-4, atol=1e-5) for name in plain)


def test_an_interrupt_of_one_process_stops_all_and_the_resumed_run_is_the_same(pair):
    assert log(pair.run("stopped")) == log(pair.run("never stopped"))
    assert same(tensors(pair.run("stopped")), tensors(pair.run("never stopped")))


def test_a_sharded_base_is_held_in_parts_and_given_back(pair):
    for seen in pair.seen:
        sharding = seen["sharding"]
        assert sharding.pop("held") == pytest.approx(0.5, abs=0.05)
        assert sharding.pop("freed") == 0
        assert all(sharding.values()), sharding


def test_gradients_are_summed_where_they_are(pair):
    for seen in pair.seen:
        sums = seen["sums"]
        assert sums["gradients"] == [[3.0, 3.0], [5.0, 5.0], None]  # what none has stays without, for the optimizer
        assert sums["loss"] == 1.0
        assert sums["anywhere"] and not sums["nowhere"]
        assert sums["told"] == "by 0"


def test_different_options_are_an_error_in_every_process(pair):
    for seen in pair.seen:
        assert seen["disagreement"].startswith("the processes do not have the same options, data and folder")
        assert "process 1" in seen["disagreement"]
    assert not (pair.folder / "different").exists()


@pytest.mark.parametrize(
    ("launcher", "task", "base"), [(TORCHRUN, "generate", "llama"), (ACCELERATE, "classify", "bert")]
)
def test_the_command_line_runs_under_a_launcher(toys, tmp_path, launcher, task, base):
    train, dev = toys.data[task]
    data = ["--task", task, "--base", getattr(toys, base), "--train", train, "--eval", dev, "--precision", "fp32"]
    short = ["--max-steps", 3, "--batch-size", 4] + (["--set", "generate.max_new_tokens=2"] * (task == "generate"))
    done = launch(launcher, "-m", "graftune", "train", *data, *short, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adapter: ") == 1  # one of them speaks
    assert done.stderr.count("step 3/3") == 1
    assert len(log(tmp_path / "run")) == 3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 3
    toys.train(tmp_path / "one", make("lora"), base=base, task=task, max_steps=3)
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "run")
    assert all(torch.allclose(two[name], one[name], rtol=1e-5, atol=1e-5) for name in one)


def test_processes_that_do_not_come_are_an_error(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    places = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    for name, value in {**places, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, "ANSWER", timedelta(seconds=1))
    PartialState._reset_state()  # whatever ran before in this process
    try:
        with pytest.raises(GraftuneError, match=r"another process does not answer[\s\S]*2 processes"):
            distributed.join()
    finally:
        PartialState._reset_state()


def test_one_process_is_told_that_it_shards_nothing(toys, tmp_path):
    said: list[str] = []
    toys.train(tmp_path, max_steps=1, shard=True, say=said.append)
    assert any("shard=true changes nothing" in line for line in said)


def test_a_comparison_does_not_shard(toys, tmp_path):
    with pytest.raises(GraftuneError, match="compare does not shard"):
        compare(toys.llama, ["lora"], out=tmp_path, shard=True, **toys.options())
