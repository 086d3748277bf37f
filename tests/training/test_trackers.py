"""Trackers get every step of the curve."""

from __future__ import annotations

import pytest

from graftune.errors import GraftuneError
from training.tiny import log


def test_tensorboard_gets_the_curve(toys, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    toys.train(tmp_path, trackers=["tensorboard"], eval_every=3)
    reader = events.EventAccumulator(str(tmp_path / "graftune"))
    reader.Reload()
    losses = {event.step: event.value for event in reader.Scalars("loss")}
    assert losses == pytest.approx({point["step"]: point["loss"] for point in log(tmp_path)})
    assert [event.step for event in reader.Scalars("eval_loss")] == [3, 6]
    assert reader.Scalars("learning_rate")[-1].value > 0


@pytest.mark.parametrize(
    ("name", "message"), [("tensorbord", "did you mean 'tensorboard'"), ("clearml", "pip install clearml")]
)
def test_a_tracker_that_is_not_there_is_refused_at_once(toys, tmp_path, name, message):
    with pytest.raises(GraftuneError, match=message):
        toys.train(tmp_path / "out", trackers=[name])
    assert not (tmp_path / "out").exists()
