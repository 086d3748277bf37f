"""Classification by a trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import CLASSES, Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError, unknown
from graftune.tasks import labels
from graftune.tasks.batches import inputs
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.bound_labels import BoundLabels
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.labelled import Labelled
from graftune.tasks.task import Task


@dataclass(frozen=True)
class Classify(Labelled):
    """The target is one of the labels; every method trains a head for them.

    `pattern` is the text that is classified: `"{input}"`, or several columns, `"{premise}{sep}{hypothesis}"`.
    `labels` are by default all that occur in the training rows. `weights` weigh the loss of each label: "balanced" is
    rows / (labels · rows of that label), as scikit-learn has it.
    """

    pattern: str = "{input}"
    labels: tuple[str, ...] | None = None
    weights: Mapping[str, float] | Literal["balanced"] | None = None

    name: ClassVar[str] = "classify"
    metric: ClassVar[str] = "accuracy"
    columns: ClassVar[Columns] = Columns(targets=CLASSES, target=values.label)

    @property
    def instruction(self) -> str:
        return f"Which one is this: {', '.join(self.known)}?"

    def fit(self, rows: Sequence[Row]) -> Self:
        """Labels: all that occur in `rows`. Raises GraftuneError for fewer than two, or a weight of no label."""
        names = labels.labels_of((row.target for row in rows), self.labels)
        return replace(self, labels=names, weights=_weights(self.weights, names, rows))

    def problem(self, row: Row) -> str | None:
        return None if row.target in self.known else labels.unknown_label(row.target, self.known)

    def head(self, config: Any) -> Head:
        return Head(self.name, "AutoModelForSequenceClassification", labels=self.known, pads=True)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        """Raises GraftuneError where the base knows no padding token, by which heads find the last token."""
        return BoundClassify(self, config, processor)

    def without_training(self) -> Task:
        """The same labels, answered in words."""
        from graftune.tasks.cloze import Cloze

        return Cloze(words="first", labels=self.labels)


def _weights(
    weights: Mapping[str, float] | str | None, names: Sequence[str], rows: Sequence[Row]
) -> dict[str, float] | None:
    if weights is None:
        return None
    if isinstance(weights, str):
        counts = {name: sum(row.target == name for row in rows) for name in names}
        return {name: len(rows) / (len(names) * max(count, 1)) for name, count in counts.items()}
    if strange := [name for name in weights if name not in names]:
        raise unknown("label in weights", strange[0], names)
    if bad := {name: weight for name, weight in weights.items() if not 0 <= float(weight) < float("inf")}:
        raise GraftuneError("bad weight of a label", received=bad, expected="finite numbers, none below 0")
    return {name: float(weights.get(name, 1.0)) for name in names}


class BoundClassify(BoundLabels):
    """Classification of text on one base."""

    task: Classify

    def __init__(self, task: Classify, config: Any, processor: Any) -> None:
        weights = task.weights if isinstance(task.weights, Mapping) else {}
        super().__init__(task, config, processor, task.known, [weights.get(label, 1.0) for label in task.known])
        if config.get_text_config().pad_token_id is None:
            raise GraftuneError(
                "the base has no padding token, by which its head finds the end of a row",
                received="pad_token_id=None in the base's config",
                expected="the id that the batches are padded with",
                do="load the base with pad_token_id=tokenizer.pad_token_id",
            )

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """ids = the filled template; one label."""
        return self.encode_many([row], encoder)[0]

    def encode_many(self, rows: Sequence[Row], encoder: PromptEncoder) -> list[Sequence[Features]]:
        return [
            [Features(prompt.ids, self.number(row), prompt.truncated, prompt.type_ids)]
            for row, prompt in zip(rows, encoder.fit_many(rows), strict=True)
        ]

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, int64 (rows,)."""
        return inputs(features, self.pad_id, width=width) | {"labels": torch.tensor([item.labels for item in features])}

    def scores(self, outputs: Any, batch: Batch) -> Tensor:
        return outputs.logits.float()
