"""Regression: the target is a number or several, such as a rating or a similarity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import INPUTS, Columns
from graftune.datasets.rows import Row
from graftune.tasks import metrics
from graftune.tasks.batches import inputs
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder, truncation
from graftune.tasks.task import Task


@dataclass(frozen=True)
class Regress(Task):
    """The head's outputs, times the spread of the training targets, plus their mean: y = mean + spread · f(x).

    The loss is the mean of (f(x) - (y - mean) / spread)². A target is one number, or a list of as many in every row.
    `pattern` may name several columns.
    """

    pattern: str = "{input}"
    mean: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None

    name: ClassVar[str] = "regress"
    metric: ClassVar[str] = "pearson"
    columns: ClassVar[Columns] = Columns(
        INPUTS, ("score", "target", "label", "rating", "value", "similarity", "scores"), target=values.numbers
    )

    @property
    def expectation(self) -> str:
        return f"{len(self.mean or (0,))} numbers in every row" if len(self.mean or ()) > 1 else "a number in every row"

    def fit(self, rows: Sequence[Row]) -> Self:
        """Mean and spread of each number of the targets that have as many as most."""
        if self.mean is not None and self.spread is not None:
            return self
        count = statistics.mode(len(row.target) for row in rows) if rows else 1
        columns = list(zip(*(row.target for row in rows if len(row.target) == count), strict=True)) or [(0.0,)]
        return replace(
            self,
            mean=tuple(statistics.fmean(column) for column in columns),
            spread=tuple(statistics.pstdev(column) or 1.0 for column in columns),
        )

    def problem(self, row: Row) -> str | None:
        count = len(self.mean or ())
        return f"{len(row.target)} numbers instead of {count}" if count and len(row.target) != count else None

    def head(self, config: Any) -> Head:
        arguments = {"num_labels": len(self.mean or (0,)), "problem_type": "regression"}
        return Head(self.name, "AutoModelForSequenceClassification", arguments=arguments, pads=True)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundRegress(self, config, processor)


class BoundRegress(BoundTask):
    """Regression on one base."""

    task: Regress

    def __init__(self, task: Regress, config: Any, processor: Any) -> None:
        super().__init__(task, config, processor)
        self.mean, self.spread = task.mean or (0.0,), task.spread or (1.0,)

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """ids = the filled template; the labels are the standardised targets."""
        prompt = encoder.fit(row)
        standard = [(y - mean) / spread for y, mean, spread in zip(row.target, self.mean, self.spread, strict=True)]
        return [Features(prompt.ids, standard, prompt.truncated, prompt.type_ids)]

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, float32 (rows, numbers)."""
        wanted = torch.tensor([item.labels for item in features], dtype=torch.float32)
        return inputs(features, self.pad_id, width=width) | {"labels": wanted}

    def counts(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), 1, device=batch["labels"].device)

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The mean squared error of each row's standardised targets; `smoothing` has no meaning here."""
        logits = outputs.logits.float()
        return (logits - batch["labels"].to(logits.device)).square().mean(-1, keepdim=True)

    def decode(self, outputs: Any, batch: Batch) -> list[list[float]]:
        """The standardised numbers."""
        found: list[list[float]] = outputs.logits.float().tolist()
        return found

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Pearson's and Spearman's correlation, mean absolute and root mean squared error."""
        guesses = [
            [mean + spread * y for y, mean, spread in zip(own[0], self.mean, self.spread, strict=True)]
            for own in answers
        ]
        predictions = [
            {"line": row.line, "input": self.display(row), "target": _shown(row.target), "prediction": _shown(guess)}
            for row, guess in zip(rows, guesses, strict=True)
        ]
        scores = metrics.regression(guesses, [row.target for row in rows])
        notes = {**scores.notes, "truncated": truncation(features)}
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def dummy_target(self, row: Row) -> Any:
        return self.mean


def _shown(numbers: Sequence[float]) -> Any:
    """One number as such, several as a list."""
    return numbers[0] if len(numbers) == 1 else list(numbers)
