"""The loop: schedule, optimizer groups, losses, and what training may change."""

from __future__ import annotations

import copy
import math
import re
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, BloomConfig, BloomForCausalLM

import graftune as gt
from graftune.bases.loading import load_base, load_config, load_processor
from graftune.datasets.rows import read
from graftune.errors import GraftuneError
from graftune.inference.running import first_virtual_id
from graftune.methods.method import PRESETS
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from graftune.tasks.features import PromptEncoder
from graftune.templates.template import Template
from graftune.training.budget import Budget
from graftune.training.optimizer import set_rate
from graftune.training.run import train
from graftune.training.step import Step
from methods_under_test import disturb
from training.tiny import contradictions, log, saved, small, write

TRAINED = sorted(name for name, (cls, _) in PRESETS.items() if cls.trainable and name != "head")


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
    tokenizer = load_processor(toys.llama)
    base = load_base(toys.llama, task.head(load_config(toys.llama)), tokenizer)
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

    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be to ignore it (nohup)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", pressed)
    try:
        with pytest.raises(KeyboardInterrupt):
            toys.train(tmp_path)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
    assert [point["step"] for point in log(tmp_path)] == [1]
    assert (tmp_path / "checkpoints" / "step-00000001" / "state.json").exists()


def test_training_runs_in_a_thread_of_its_own(toys, tmp_path):
    thread = threading.Thread(target=toys.train, args=(tmp_path,), kwargs={"max_steps": 2})
    thread.start()
    thread.join()
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("base", "task"), [("llama", "generate"), ("bert", "classify")])
@pytest.mark.parametrize("method", TRAINED)
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(toys, base, task, method, smoothing):
    """Exactly: the mean is over all targets of the batch. Generators run once for all of them."""
    gradients = []
    for tokens in (None, 25, 1):
        model, data, made = step_on(toys, base, task, method)
        step = Step(model, "a", made, replace(budget(9, 0), micro_tokens=tokens, smoothing=smoothing))
        loss, _ = step.backward(data)
        gradients.append([torch.tensor(loss).double(), *(p.grad for p in model.parameters_of("a"))])
        model.close()
    for cut in gradients[1:]:
        for whole, mine in zip(gradients[0], cut, strict=True):
            assert (whole is None) == (mine is None)
            if whole is not None:
                torch.testing.assert_close(mine, whole, atol=1e-6, rtol=1e-5)


def step_on(toys, base, task, method):
    """A model in float64 with a disturbed adapter, rows of unequal lengths, and the task."""
    rows = read(toys.data[task][0]).rows[:7]
    rows = [replace(row, input=row.input + "!" * (3 * n)) for n, row in enumerate(rows)]
    fitted = registry.make(task).fit(rows)
    tokenizer = load_processor(getattr(toys, base))
    head = fitted.head(load_config(getattr(toys, base)))
    loaded = load_base(getattr(toys, base), head, tokenizer)
    made = fitted.bind(loaded.config, tokenizer)
    model = AdaptedModel(loaded, tokenizer)
    model.add("a", small(method), heads=head.modules(loaded), seed=0)
    model.double().train()
    disturb(model, "a", size=0.02)
    template = Template(model.adapter("a").method.template)
    encoder = PromptEncoder(tokenizer, template, first_virtual_id(model))
    data = [made.encode(row, encoder)[0] for row in rows]
    return model, data, made


def test_lora_plus_and_rates_by_name(toys, tmp_path):
    """Adam's first step moves every parameter by its learning rate."""
    model, _, made = step_on(toys, "llama", "generate", "lora")
    plan = replace(budget(1, 0), rates={r"\.B$": 16, "layers/1": 3})
    step = Step(model, "a", made, plan)
    before = {n: p.detach().clone() for n, p in step.adapter.named_parameters()}
    for parameter in step.parameters:
        parameter.grad = torch.ones_like(parameter)
    set_rate(step.optimizer, plan.rate(0))
    step.optimizer.step()
    for name, parameter in step.adapter.named_parameters():
        factor = 3 if "layers/1" in name else 16 if name.endswith(".B") else 1
        torch.testing.assert_close(
            before[name] - parameter, torch.full_like(parameter, 0.5 * factor), rtol=1e-6, atol=0
        )
    for pattern in ("lstm", "("):  # and what is no pattern at all
        with pytest.raises(GraftuneError, match=r"a part that is not there[\s\S]*" + re.escape(repr(pattern))):
            toys.train(tmp_path / "out", "lora", lora={"rates": {pattern: 2}})
    assert not (tmp_path / "out").exists()


def test_lora_plus_is_an_option_of_lora():
    assert small("lora", plus=16).rates == {r"\.B$": 16}
    assert small("lora").rates == {}


def test_early_stopping_gives_the_best_adapter(toys, tmp_path):
    """Answers that contradict the training rows: their loss rises again, and the run goes back to its lowest point."""
    options = {"eval": contradictions(tmp_path), "lr": 0.1, "max_steps": 60, "eval_every": 1}
    run = toys.train(tmp_path / "stopped", "lora", **options, patience=3)
    losses = [point["eval_loss"] for point in run.progress.curve]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3 < 60
    assert run.metrics["loss"] == pytest.approx(losses[best], rel=1e-5)
    whole = toys.train(tmp_path / "whole", "lora", **options)
    assert whole.metrics["loss"] > losses[best] + 0.05
    kept = toys.train(tmp_path / "kept", "lora", **options, keep_best=True)
    assert kept.progress.step == 60
    assert kept.metrics["loss"] == pytest.approx(min(p["eval_loss"] for p in kept.progress.curve), rel=1e-5)


def test_gradient_checkpointing_trains_the_same(toys, tmp_path):
    for name, on in (("with", True), ("without", False)):
        toys.train(tmp_path / name, "houlsby", gradient_checkpointing=on)
    for mine, plain in zip(log(tmp_path / "with"), log(tmp_path / "without"), strict=True):
        assert mine["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_products_are_chosen_aloud(toys, tmp_path):
    said: list[str] = []
    toys.train(tmp_path / "a", products="onednn", say=said.append)
    toys.train(tmp_path / "b", products="torch", say=said.append)
    assert sum("fp32 products by oneDNN" in line for line in said) == 1


@pytest.mark.parametrize("method", ["prompt", "p-tuning", "prefix", "lora"])
def test_texts_at_the_limit_leave_room_for_virtual_tokens(toys, tmp_path, method):
    """Rows are padded to a multiple of 8, but not beyond what the base has positions for."""
    rows = [{"text": "x" * 200 + str(n), "label": "ab"[n % 2]} for n in range(4)]
    data = write(tmp_path / "long.jsonl", rows)
    run = toys.train(
        tmp_path / "run", method, base="bert", task="classify", train=data, eval=data, max_steps=1, batch_size=2
    )
    assert run.metrics["accuracy"] >= 0


@pytest.mark.parametrize("where", ["input", "target"])
@pytest.mark.parametrize("method", ["prompt", "p-tuning", "lora"])
def test_tokens_without_a_row_are_no_virtual_tokens(toys, tmp_path, method, where):
    """A tokenizer with more tokens than the embedding has rows: their ids are those of the virtual tokens."""
    base = shutil.copytree(toys.llama, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert len(tokenizer) == AutoConfig.from_pretrained(base).vocab_size
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(base)
    row = {"table": "n1", "text": "one"}
    text = {"input": "table", "target": "text"}[where]
    clean, strange = (
        write(tmp_path / "a.jsonl", [row] * 4),
        write(tmp_path / "b.jsonl", [row, {**row, text: "a <new>"}]),
    )
    options = {"max_steps": 1, "batch_size": 2, "generate": {"max_new_tokens": 2}}
    toys.llama, before = str(base), toys.llama
    try:
        toys.train(tmp_path / "clean", method, train=clean, eval=clean, **options)
        with pytest.raises(GraftuneError, match="more tokens than the base's embedding has rows") as caught:
            toys.train(tmp_path / "strange", method, train=strange, eval=clean, **options)
        assert "in line 2" in str(caught.value)
    finally:
        toys.llama = before
    with pytest.raises(GraftuneError, match="more tokens than the base's embedding has rows"):
        gt.load(tmp_path / "clean")(["a <new>"])


@pytest.mark.parametrize("method", [gt.BitFit(), gt.LoRA(rank=2, targets="all"), gt.FullFineTuning()])
def test_a_base_whose_attention_is_not_seen_is_trained_where_a_method_fits(toys, tmp_path, method):
    """Bloom's attention adds the residual itself: no output of it can be adapted, but its maps and biases can."""
    tokenizer = AutoTokenizer.from_pretrained(toys.llama)
    config = BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=len(tokenizer))
    base = saved(tmp_path / "bloom", BloomForCausalLM(config), tokenizer)
    train, _ = toys.data["generate"]
    options = {"task": "generate", "train": train, "eval": train, "max_steps": 4, "generate": {"max_new_tokens": 2}}
    gt.train(base, method, out=tmp_path / "run", lr=1e-2, **options)
    losses = [line["loss"] for line in log(tmp_path / "run")]
    assert losses[-1] < losses[0]
