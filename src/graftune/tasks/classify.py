"""Classification by a trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import labels, metrics
from graftune.tasks.batches import inputs
from graftune.tasks.features import Features, Reading, truncation
from graftune.tasks.running import pad_id
from graftune.tasks.task import Evaluation, Task


@dataclass
class Classify(Task):
    """The target is one of the labels found in the training rows; every method trains a head for them.

    `pattern` is the text that is classified: `"{input}"`, or several columns, `"{premise} {hypothesis}"`.
    """

    pattern: str = "{input}"

    labels: tuple[str, ...] = field(default=(), init=False)

    name: ClassVar[str] = "classify"
    metric: ClassVar[str] = "accuracy"
    learned: ClassVar[tuple[str, ...]] = ("labels",)

    @property
    def instruction(self) -> str:
        return f"Which one is this: {', '.join(self.known())}?"

    def auto_class(self, config: Any) -> str:
        return "AutoModelForSequenceClassification"

    def head_names(self, base: Any) -> tuple[str, ...]:
        """Raises GraftuneError for a base that has a language model's head, or none."""
        return labels.heads(base, self.auto_class(base.config))

    def prepare(self, rows: Sequence[Row]) -> None:
        """The labels are all that occur in `rows`, sorted. Raises GraftuneError for fewer than two."""
        self.labels = labels.found(row.target for row in rows)

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """Rows with an unknown label."""
        known = self.known()
        return {row.line: labels.unknown(row.target, known) for row in rows if row.target not in known}

    @property
    def good_row(self) -> str:
        return "labels that the training rows have"

    def blank(self, input: Any) -> Any:
        return self.known()[0]

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        """The labels, and the padding token, by which a decoder's head finds the last token of a row."""
        arguments = labels.arguments(self.known())
        return arguments if processor is None else arguments | {"pad_token_id": pad_id(processor)}

    def encode(self, row: Row, reading: Reading) -> Features:
        """ids = the filled template; one label."""
        prompt = reading.fit(row)
        return Features(prompt.ids, self.index(row), prompt.truncated)

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 (rows, longest or `width`), and `labels`, int64 (rows,)."""
        batch = inputs([item.ids for item in features], pad_id, width=width)
        batch["labels"] = torch.tensor([item.labels for item in features])
        return batch

    def scores(self, outputs: Any, batch: dict[str, Tensor]) -> Tensor:
        """float32 (rows, labels): the head's logits."""
        return outputs.logits.float()

    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy over rows."""
        scores = self.scores(outputs, batch)
        return cross_entropy(scores, batch["labels"].to(scores.device), label_smoothing=smoothing)

    def read(self, outputs: Any, batch: dict[str, Any]) -> list[list[float]]:
        """The logarithms of the labels' probabilities."""
        found: list[list[float]] = self.scores(outputs, batch).log_softmax(-1).tolist()
        return found

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """Accuracy, macro F1 and mean loss; each prediction has the probabilities of all labels."""
        known = self.known()
        chances = [own[0] for own in found]
        truth = [self.index(row) for row in rows]
        guesses = [max(range(len(known)), key=values.__getitem__) for values in chances]
        loss = -sum(values[i] for values, i in zip(chances, truth, strict=True)) / len(rows)
        predictions = [
            {
                "line": row.line,
                "input": self.shown(row),
                "target": row.target,
                "prediction": known[guess],
                "probabilities": dict(zip(known, torch.tensor(values).exp().tolist(), strict=True)),
            }
            for row, guess, values in zip(rows, guesses, chances, strict=True)
        ]
        scores = metrics.classification(guesses, truth) | {"loss": loss}
        return Evaluation(scores, predictions, {"truncated": truncation(parts)})

    def padding(self, model: AdaptedModel, processor: Any) -> int:
        """Raises GraftuneError where the base knows none: its head then cannot find the end of a row."""
        padding = model.config.get_text_config().pad_token_id
        if padding is None:
            raise GraftuneError(
                "the base has no padding token, by which its head finds the end of a row",
                received="pad_token_id=None in the base's config",
                expected="the id that the batches are padded with",
                do="load the base with **task.model_arguments(tokenizer)",
            )
        return int(padding)

    def known(self) -> tuple[str, ...]:
        """The labels. Raises GraftuneError before `prepare`."""
        return labels.known(self.labels, type(self).__name__)

    def index(self, row: Row) -> int:
        """The number of the row's label. Raises GraftuneError for an unknown one."""
        if row.target not in self.known():
            self.check([row])
        return self.known().index(row.target)
