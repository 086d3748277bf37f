"""The loss at the targets alone is the loss of all logits, with its gradient, however it is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import DECODERS, base, batch
from graftune.inference import losses
from graftune.model.adapted import AdaptedModel
from graftune.tasks.classify import Classify
from graftune.tasks.generate import Generate
from methods_under_test import METHODS, disturb

from .conftest import byte_level


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(2, 30), st.floats(0, 0.9), st.integers(0, 99))
def test_cross_entropy_and_its_gradient_are_those_of_torch(rows, words, smoothing, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (5 * torch.randn(rows, words, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(words, (rows,), generator=generator)
    targets[rows // 2 :] = torch.where(
        torch.rand(rows - rows // 2, generator=generator) < 0.5, -100, targets[rows // 2 :]
    )
    each, gradient = losses._cross_entropy(logits.detach(), targets, smoothing)
    reference = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    reference.backward()
    torch.testing.assert_close(each.sum().double(), reference.detach(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), logits.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows_at_a_time", [32, 64, 10**6])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", DECODERS)
def test_a_generation_step_has_the_gradient_of_all_logits(family, method, smoothing, rows_at_a_time, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_BYTES", rows_at_a_time * 4 * 97)
    model = AdaptedModel(base(family)).train()
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a")
    data = batch((21, 15, 18, 7))
    data["labels"] = data["input_ids"].masked_fill(data["attention_mask"] == 0, -100)
    data["labels"][:, :4] = -100
    task = Generate().bind(model.config, byte_level())
    logits = model(**task.model_inputs(data), adapters="a").logits[:, :-1]
    labels = data["labels"][:, 1:]
    reference = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 97), labels.reshape(-1), ignore_index=-100, label_smoothing=smoothing
    )
    (0.5 * reference).backward()
    expected = [p.grad for p in model.parameters_of("a")]
    model.zero_grad()
    totals = 2 * task.counts(data).sum(0)
    sums = losses.batch_losses(model, "a", task, data, smoothing=smoothing, totals=totals)
    loss = sums.sum() / task.counts(data).sum()
    torch.testing.assert_close(loss, reference.detach(), atol=1e-5, rtol=1e-5)
    for parameter, gradient in zip(model.parameters_of("a"), expected, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
    assert not loss.requires_grad


def test_without_a_share_nothing_is_sent_back():
    model = AdaptedModel(base("llama")).train()
    model.add("a", METHODS["lora"])
    data = batch()
    data["labels"] = data["input_ids"]
    losses.batch_losses(model, "a", Generate().bind(model.config, byte_level()), data)
    assert all(p.grad is None for p in model.parameters_of("a"))


def test_classes_are_smoothed_too():
    model = AdaptedModel(base("bert", classifier=True))
    model.add("a", METHODS["lora"], heads=("classifier",))
    data = {**batch(), "labels": torch.tensor([0, 1, 1, 0])}
    model.config.pad_token_id = 0
    task = Classify(labels=("a", "b")).bind(model.config, byte_level())
    reference = torch.nn.functional.cross_entropy(
        model(**batch(), adapters="a").logits, data["labels"], label_smoothing=0.2
    )
    sums = losses.batch_losses(model, "a", task, data, smoothing=0.2)
    torch.testing.assert_close(sums.mean(), reference.detach())
