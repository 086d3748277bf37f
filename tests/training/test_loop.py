"""The loop: schedule, optimizer groups, losses, and what training may change."""

from __future__ import annotations

import copy
import math
import signal
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftune.bases.loading import load_base, load_tokenizer
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS
from graftune.tasks import registry
from graftune.training.budget import Budget
from graftune.training.run import train
from training.tiny import log, small

TRAINED = sorted(name for name, (cls, _) in PRESETS.items() if cls.trainable)


def budget(steps, warmup, schedule="linear"):
    return Budget(steps, 4, 0.5, warmup, 0.0, 1.0, 0, 1, 1, schedule=schedule)


@given(st.integers(1, 500), st.floats(0, 0.99), st.sampled_from(["linear", "cosine", "constant"]))
def test_rates_rise_to_the_peak_and_fall_as_the_schedule_says(steps, warmup, schedule):
    rates = [budget(steps, warmup, schedule).rate(step) / 0.5 for step in range(steps)]
    rising = max(1, round(warmup * steps))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[rising - 1] == 1
    assert rates[:rising] == pytest.approx([(k + 1) / rising for k in range(rising)])
    gone = [k / (steps - rising + 1) for k in range(steps - rising + 1)]  # of the way down
    falling = {
        "linear": [1 - t for t in gone],
        "cosine": [math.cos(math.pi * t / 2) ** 2 for t in gone],
        "constant": [1] * len(gone),
    }
    assert rates[rising - 1 :] == pytest.approx(falling[schedule])
    assert budget(steps, warmup, "linear").rate(steps) == 0


@pytest.mark.parametrize("method", TRAINED)
def test_loss_goes_down(toys, tmp_path, method):
    run = toys.train(tmp_path, method, max_steps=12, lr=2e-2, eval_every=1)
    losses = [point["eval_loss"] for point in run.progress.curve]
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("method", ["lora", "prompt", "freeze", "full", "houlsby"])
def test_only_the_adapter_changes(toys, tmp_path, method):
    task = registry.make("generate", max_new_tokens=2)
    tokenizer = load_tokenizer(toys.llama)
    base = load_base(toys.llama, task, tokenizer)
    before = copy.deepcopy(base.state_dict())
    train(base, small(method), out=tmp_path, tokenizer=tokenizer, **toys.options(max_steps=3))
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())


def test_weight_decay_spares_vectors(toys, tmp_path, monkeypatch):
    made = []

    class Spy(torch.optim.AdamW):
        def __init__(self, groups, **options):
            made.extend(groups)
            super().__init__(groups, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    toys.train(tmp_path, "houlsby", max_steps=1, weight_decay=0.1)
    decay = {p.dim(): group["weight_decay"] for group in made for p in group["params"]}
    assert decay == {1: 0.0, 2: 0.1}


def test_a_diverging_run_says_so(toys, tmp_path):
    with pytest.raises(GraftuneError, match=r"no longer a number at step[\s\S]*--lr"):
        toys.train(tmp_path, "full", max_steps=12, lr=1e30, warmup=0.0)
    assert not (tmp_path / "adapter").exists()


def test_bf16_trains(toys, tmp_path):
    run = toys.train(tmp_path, "lora", precision="bf16", lr=2e-2, max_steps=12, eval_every=1)
    losses = [point["eval_loss"] for point in run.progress.curve]
    assert losses[-1] < losses[0]


def test_steps_and_epochs_are_two_ways_to_say_a_length(toys, tmp_path):
    assert toys.train(tmp_path / "steps", max_steps=5).progress.step == 5
    assert toys.train(tmp_path / "epochs", epochs=2).progress.step == 6  # 12 rows, 4 a step
    assert toys.train(tmp_path / "half", epochs=0.5).progress.step == 2  # 1.5 rounds to even
    with pytest.raises(GraftuneError, match="max_steps and epochs exclude each other"):
        toys.train(tmp_path / "both", epochs=1, max_steps=3)


def test_the_log_is_there_while_training(toys, tmp_path):
    seen = []
    toys.train(tmp_path, watch=lambda report: seen.append([point["step"] for point in log(tmp_path)]))
    assert seen == [list(range(1, step + 1)) for step in range(1, 7)]


def test_ctrl_c_waits_for_the_end_of_a_step(toys, tmp_path, monkeypatch):
    real = torch.nn.utils.clip_grad_norm_

    def pressed(*args, **options):
        signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", pressed)
    with pytest.raises(KeyboardInterrupt):
        toys.train(tmp_path)
    assert signal.getsignal(signal.SIGINT) == before
    assert [point["step"] for point in log(tmp_path)] == [1]
    assert (tmp_path / "checkpoints" / "step-00000001" / "state.json").exists()


def test_training_runs_in_a_thread_of_its_own(toys, tmp_path):
    thread = threading.Thread(target=toys.train, args=(tmp_path,), kwargs={"max_steps": 2})
    thread.start()
    thread.join()
    assert (tmp_path / "run.json").exists()
