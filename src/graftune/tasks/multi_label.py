"""Multi-label classification: each row has any number of labels, told apart by a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import INPUTS, Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.tasks import labels, metrics
from graftune.tasks.batches import inputs
from graftune.tasks.bound import Batch, BoundTask, Evaluation
from graftune.tasks.features import Features, PromptEncoder, truncation
from graftune.tasks.labelled import Labelled


@dataclass(frozen=True)
class MultiLabel(Labelled):
    """The target is a list of labels, which may be empty; a label is predicted above a probability.

    The loss of a row is the mean over labels of the binary cross-entropy.
    """

    pattern: str = "{input}"
    labels: tuple[str, ...] | None = None
    threshold: float = 0.5

    name: ClassVar[str] = "multi-label"
    metric: ClassVar[str] = "f1"
    columns: ClassVar[Columns] = Columns(
        INPUTS, ("labels", "label", "tags", "categories", "topics", "target"), target=values.labels
    )

    def fit(self, rows: Sequence[Row]) -> Self:
        """Labels: all that occur in `rows`. Raises GraftuneError where every row has all of them."""
        names = labels.labels_of((label for row in rows for label in row.target), self.labels, least=1)
        if len(rows) > 1 and all(len(row.target) == len(names) for row in rows):
            raise GraftuneError(
                "every row has all labels, so that there is nothing to tell apart",
                received=f"{', '.join(map(repr, names))} in each of {len(rows)} rows",
                expected="the names of a row's own labels; ones and zeros are not read as such",
                do="write the names of the labels that a row has",
            )
        return replace(self, labels=names)

    def problem(self, row: Row) -> str | None:
        strange = [label for label in row.target if label not in self.known]
        return labels.unknown_label(strange[0], self.known) if strange else None

    def head(self, config: Any) -> Head:
        arguments = {"problem_type": "multi_label_classification"}
        return Head(self.name, "AutoModelForSequenceClassification", labels=self.known, arguments=arguments, pads=True)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundMultiLabel(self, config, processor)


class BoundMultiLabel(BoundTask):
    """Multi-label classification on one base."""

    task: MultiLabel

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """ids = the filled template; labels: 1 for each label that the row has, else 0."""
        prompt = encoder.fit(row)
        return [
            Features(
                prompt.ids, [float(name in row.target) for name in self.task.known], prompt.truncated, prompt.type_ids
            )
        ]

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, float32 (rows, labels)."""
        return inputs(features, self.pad_id, width=width) | {"labels": torch.tensor([item.labels for item in features])}

    def counts(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), 1, device=batch["labels"].device)

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The mean binary cross-entropy of each row, of targets moved by `smoothing` towards 1/2."""
        logits = outputs.logits.float()
        wanted = batch["labels"].to(logits.device) * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1, keepdim=True)

    def decode(self, outputs: Any, batch: Batch) -> list[list[float]]:
        """The probability of each label."""
        found: list[list[float]] = outputs.logits.float().sigmoid().tolist()
        return found

    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Micro and macro F1, and the share of rows that are all right."""
        names = self.task.known
        guesses = [[chance > self.task.threshold for chance in own[0]] for own in answers]
        truth = [[name in row.target for name in names] for row in rows]
        predictions = [
            {
                "line": row.line,
                "input": self.display(row),
                "target": ", ".join(row.target),
                "prediction": ", ".join(name for name, chosen in zip(names, guess, strict=True) if chosen),
            }
            for row, guess in zip(rows, guesses, strict=True)
        ]
        scores = metrics.multi_label(guesses, truth)
        notes = {**scores.notes, "truncated": truncation(features)}
        return Evaluation(scores.values, predictions, notes, scores.sums)

    def dummy_target(self, row: Row) -> Any:
        return ()
