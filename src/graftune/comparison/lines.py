"""A line of results: what a trial was, and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from graftune.comparison.plan import Finished, Stage, Trial
from graftune.comparison.points import options_of

OVERFIT: Final = 1.05  # a final eval loss above this many times its own minimum counts as overfitting

LOWER_IS_BETTER: Final = frozenset({"loss", "perplexity", "wer", "cer", "ter", "mae", "mse", "rmse"})


def sign(metric: str) -> int:
    """1 where larger is better, -1 where smaller is."""
    return -1 if metric.lower() in LOWER_IS_BETTER else 1


class CurvePoint(BaseModel):
    """One measured step of a training run."""

    step: int
    loss: float | None = None
    eval_loss: float | None = None


class Example(BaseModel):
    """One generated output beside what was asked for."""

    input: str
    prediction: str
    references: list[str] = Field(default_factory=list)


class Speed(BaseModel):
    """Seconds an answer takes in batches of a size: with the adapter, without it, and merged where that is exact."""

    batch: int
    adapter: float
    base: float
    merged: float | None = None


class Run(BaseModel):
    """One trial: a method with one seed. A failed one has an error and none of the measurements.

    `score` is what the rate was chosen by, on rows that are not reported. A failed one with `again` is tried again
    when the comparison is started again.
    """

    method: str
    label: str
    seed: int
    stage: Stage = "report"
    rate: float | None = None
    head_rate: float | None = None
    share: float = 1.0
    rows: int | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    score: float | None = None
    again: bool = False
    steps: int | None = None
    cpu_seconds: float | None = None
    joules: float | None = None
    energy_source: str = ""
    joules_per_answer: float | None = None
    forgetting: dict[str, float] = Field(default_factory=dict)
    status: Literal["done", "failed"]
    error: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    parameters_trained: int | None = None
    parameters_stored: int | None = None
    bytes_stored: int | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: float | None = None
    inference: list[Speed] = Field(default_factory=list)
    train_loss: float | None = None
    curve: list[CurvePoint] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    untrained: bool = False

    @property
    def to_repeat(self) -> bool:
        """Whether it is tried again when the comparison is started again."""
        return self.again or (self.status == "failed" and self.stage == "report")

    @property
    def finished(self) -> Finished:
        """The trial, and the score that its rate is chosen by."""
        options = options_of(self.options)
        trial = Trial(self.stage, self.label, self.seed, self.rate, self.share, self.head_rate, self.rows, options)
        return Finished(trial, self.score if self.status == "done" else None)

    @property
    def latency(self) -> float | None:
        """Seconds an answer takes alone."""
        return self._speed(0, lambda speed: speed.adapter)

    @property
    def latency_ratio(self) -> float | None:
        """That against the plain base, measured in the same run."""
        return self._speed(0, lambda speed: speed.adapter / speed.base)

    @property
    def batched(self) -> float | None:
        """Seconds for each answer where many are given at once."""
        return self._speed(-1, lambda speed: speed.adapter)

    @property
    def batched_ratio(self) -> float | None:
        """That against the plain base, measured in the same run."""
        return self._speed(-1, lambda speed: speed.adapter / speed.base)

    @property
    def merged_ratio(self) -> float | None:
        """An answer alone of the base with the adapter in its weights, against the plain base."""
        return self._speed(0, lambda speed: speed.merged and speed.merged / speed.base)

    def _speed(self, place: int, figure: Callable[[Speed], float | None]) -> float | None:
        return figure(self.inference[place]) if self.inference else None

    @property
    def eval_losses(self) -> list[float]:
        """The losses on held-out rows along the curve, without those that are no numbers."""
        losses = (point.eval_loss for point in self.curve)
        return [loss for loss in losses if loss is not None and math.isfinite(loss)]

    @property
    def overfits(self) -> bool:
        """Whether the eval loss ended well above its own minimum."""
        losses = self.eval_losses
        return bool(losses) and losses[-1] > OVERFIT * min(losses)


EXAMPLES = 3  # of its predictions that a run keeps for the report


def examples(predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first predictions, where there is a shorter form for a report in that."""
    return [
        {
            "input": p["input"],
            "prediction": str(p["prediction"]),
            "references": [str(r) for r in p.get("references", [p.get("target", "")])],
        }
        for p in ({**one, **one.get("shown", {})} for one in predictions[:EXAMPLES])
    ]
