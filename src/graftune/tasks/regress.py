"""Regression: the target is a number, such as a rating or a similarity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from graftune.datasets import values
from graftune.datasets.columns import INPUTS, Columns
from graftune.datasets.rows import Row
from graftune.tasks import labels, metrics
from graftune.tasks.batches import inputs
from graftune.tasks.features import Features, Reading, truncation
from graftune.tasks.running import pad_id
from graftune.tasks.task import Evaluation, Task


@dataclass
class Regress(Task):
    """The head's one output, times the spread of the training targets, plus their mean: y = mean + spread · f(x).

    The loss is the mean of (f(x) - (y - mean) / spread)². `pattern` may name several columns.
    """

    pattern: str = "{input}"

    mean: float = field(default=0.0, init=False)
    spread: float = field(default=1.0, init=False)

    name: ClassVar[str] = "regress"
    metric: ClassVar[str] = "pearson"
    learned: ClassVar[tuple[str, ...]] = ("mean", "spread")
    columns: ClassVar[Columns] = Columns(
        INPUTS, ("score", "target", "label", "rating", "value", "similarity"), target=values.number
    )

    def auto_class(self, config: Any) -> str:
        return "AutoModelForSequenceClassification"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Raises GraftuneError for a base that has a language model's head, or none."""
        return labels.heads(base, self.auto_class(base.config))

    def prepare(self, rows: Sequence[Row]) -> None:
        """Mean and spread of the targets."""
        targets = [row.target for row in rows]
        self.mean = statistics.fmean(targets)
        self.spread = statistics.pstdev(targets) or 1.0

    def blank(self, input: Any) -> Any:
        return self.mean

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        """One output, and the padding token, by which a decoder's head finds the last token of a row."""
        arguments: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
        return arguments if processor is None else arguments | {"pad_token_id": pad_id(processor)}

    def encode(self, row: Row, reading: Reading) -> Features:
        """ids = the filled template; the label is the standardised target."""
        prompt = reading.fit(row)
        return Features(prompt.ids, (row.target - self.mean) / self.spread, prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, float32 (rows,)."""
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = torch.tensor([item.labels for item in features], dtype=torch.float32)
        return batch

    def targets(self, batch: dict[str, Any]) -> int:
        """As many as rows."""
        return len(batch["labels"])

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean squared error of standardised targets; `smoothing` has no meaning here."""
        found = outputs.logits.float()[:, 0]
        return (found - batch["labels"].to(found.device)).square().mean()

    def read(self, outputs: Any, batch: dict[str, Any]) -> list[tuple[float, float]]:
        """The standardised value, and its squared error."""
        found = outputs.logits.float()[:, 0]
        errors = (found - batch["labels"].to(found.device)).square()
        return list(zip(found.tolist(), errors.tolist(), strict=True))

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """Pearson's and Spearman's correlation, mean absolute and root mean squared error, and the mean loss."""
        values = [self.mean + self.spread * value for ((value, _),) in found]
        predictions = [
            {"line": row.line, "input": self.shown(row), "target": row.target, "prediction": value}
            for row, value in zip(rows, values, strict=True)
        ]
        scores = metrics.regression(values, [row.target for row in rows])
        scores["loss"] = statistics.fmean(error for ((_, error),) in found)
        return Evaluation(scores, predictions, {"truncated": truncation(parts)})
