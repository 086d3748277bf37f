"""What tasks have in common whose answer is one of some labels: the loss over them, and accuracy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.datasets.rows import Row, bad_lines
from graftune.tasks import metrics
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, truncation
from graftune.tasks.task import Task

PROBABILITIES = 5  # of the likeliest labels are kept with each prediction


class BoundLabels(BoundTask):
    """A task whose rows have one label each, and whose outputs give a score to each label.

    ``weights`` are those of the labels in the loss; by default each is 1.
    """

    def __init__(
        self, task: Task, config: Any, processor: Any, labels: Sequence[str], weights: Sequence[float] = ()
    ) -> None:
        super().__init__(task, config, processor)
        self.labels = tuple(labels)
        self.weights = torch.tensor(list(weights) or [1.0] * len(self.labels))

    @abstractmethod
    def scores(self, outputs: Any, batch: Batch) -> Tensor:
        """The score of each label, float32 (rows, labels): p(label) is their softmax."""

    def counts(self, batch: Batch) -> Tensor:
        """The weight of each row's label."""
        return self.weights.to(batch["labels"].device)[batch["labels"]][:, None]

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The weighted cross-entropy of each row."""
        scores = self.scores(outputs, batch)
        wanted = batch["labels"].to(scores.device)
        weights = self.weights.to(scores.device)
        each = cross_entropy(scores, wanted, weight=weights, label_smoothing=smoothing, reduction="none")
        return each[:, None]

    def decode(self, outputs: Any, batch: Batch) -> list[list[float]]:
        """The logarithms of the labels' probabilities."""
        found: list[list[float]] = self.scores(outputs, batch).log_softmax(-1).tolist()
        return found

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Accuracy and macro F1; each prediction has the probabilities of the likeliest labels."""
        chances = [own[0] for own in answers]
        truth = [self.number(row) for row in rows]
        guesses = [max(range(len(self.labels)), key=values.__getitem__) for values in chances]
        predictions = [
            {
                "line": row.line,
                "input": self.display(row),
                "target": row.target,
                "prediction": self.labels[guess],
                "probabilities": self._likeliest(values),
            }
            for row, guess, values in zip(rows, guesses, chances, strict=True)
        ]
        scores = metrics.classes(guesses, truth)
        notes = {**scores.notes, "truncated": truncation(features)}
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def _likeliest(self, logarithms: Sequence[float]) -> dict[str, float]:
        order = sorted(range(len(logarithms)), key=lambda i: -logarithms[i])[:PROBABILITIES]
        chances = torch.tensor([logarithms[i] for i in order]).exp().tolist()
        return dict(zip((self.labels[i] for i in order), chances, strict=True))

    def dummy_target(self, row: Row) -> Any:
        return self.labels[0]

    def number(self, row: Row) -> int:
        """The number of the row's label. Raises GraftuneError for an unknown one."""
        if problem := self.task.problem(row):
            raise bad_lines(self.task.name, {row.line: problem}, self.task.expectation)
        return self.labels.index(row.target)
