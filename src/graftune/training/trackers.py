"""Trackers: the curve of a run sent to TensorBoard, W&B, MLflow, Trackio and others, through Accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from graftune.errors import GraftuneError, unknown
from graftune.training.loop import Report, Watch

PROJECT = "graftune"


def check(names: Sequence[str]) -> None:
    """Raise GraftuneError for an unknown tracker, or one that is not installed."""
    installed = [tracker.value for tracker in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name not in installed:
            raise GraftuneError(
                f"the tracker {name!r} is not installed",
                received=f"trackers={list(names)}",
                expected="installed ones; here: " + (", ".join(installed) or "none"),
                do=f"pip install {name}, or leave it out",
            )


@contextmanager
def tracked(watch: Watch, names: Sequence[str], folder: Path, settings: dict[str, Any]) -> Iterator[Watch]:
    """Within the block, each report also goes to the trackers; what they write as files lies below ``folder``.

    ``settings`` are shown with the run, as far as they are numbers or text.
    """
    if not names:
        yield watch
        return
    accelerator = Accelerator(log_with=list(names), project_dir=folder)
    shown = {key: value for key, value in settings.items() if isinstance(value, int | float | str)}
    accelerator.init_trackers(PROJECT, config=shown)

    def tell(report: Report) -> None:
        values = {"loss": report.loss, "learning_rate": report.lr, "tokens_per_second": report.tokens_per_second}
        if report.eval_loss is not None:
            values["eval_loss"] = report.eval_loss
        accelerator.log(values, step=report.step)
        watch(report)

    try:
        yield tell
    finally:
        accelerator.end_training()
