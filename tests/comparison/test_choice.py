"""Which checkpoint a trial keeps: that of the lowest loss or the last, by the rows to choose by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from graftune.comparison import choice
from graftune.comparison.choice import chosen
from graftune.training.loop import fit
from graftune.training.state import Progress

EXPERIMENT = SimpleNamespace(task=SimpleNamespace(task=SimpleNamespace(metric="accuracy")))
RECIPE = SimpleNamespace()


@pytest.fixture
def trained(monkeypatch):
    """An adapter of one number, whose accuracy the number is."""
    adapter = nn.Linear(1, 1, bias=False)
    monkeypatch.setattr(choice, "metrics_of", lambda *_: {"accuracy": round(adapter.weight.item(), 3)})

    def made(best, last):
        adapter.weight.data.fill_(best)
        kept = {} if last is None else {"weight": torch.tensor([[last]])}
        return SimpleNamespace(
            name="a", model=SimpleNamespace(adapter=lambda name: adapter), progress=SimpleNamespace(last=kept)
        )

    return made


@pytest.mark.parametrize(
    ("best", "last", "kept"), [(0.5, None, 0.5), (0.5, 0.75, 0.75), (0.5, 0.25, 0.5), (0.5, 0.5, 0.5)]
)
def test_the_better_one_is_kept(trained, best, last, kept):
    one = trained(best, last)
    assert chosen(one, EXPERIMENT, RECIPE) == {"accuracy": kept}
    assert one.model.adapter("a").weight.item() == kept


def test_lower_is_better_where_the_metric_is_an_error(trained, monkeypatch):
    one = trained(0.5, 0.25)
    monkeypatch.setattr(EXPERIMENT.task.task, "metric", "wer")
    adapter = one.model.adapter("a")
    monkeypatch.setattr(choice, "metrics_of", lambda *_: {"wer": adapter.weight.item()})
    assert chosen(one, EXPERIMENT, RECIPE) == {"wer": 0.25}


def test_training_hands_on_both(toys, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr("graftune.training.loop._loss_on", lambda *_: next(losses))
    seen = []

    def watched(*given, **more):
        progress: Progress = fit(*given, **more)
        (adapter,) = [given[0].adapter(name) for name in given[0].adapters]
        seen.append((progress, {name: p.detach().clone() for name, p in adapter.named_parameters()}))
        return progress

    monkeypatch.setattr("graftune.training.trained.fit", watched)
    toys.train(tmp_path / "run", max_steps=3, eval_every=1, keep_best=True)
    ((progress, kept),) = seen
    assert progress.best == 2 and progress.step == 3
    assert set(progress.last) == set(kept)
    assert any(not torch.equal(progress.last[name], kept[name]) for name in kept)
