"""A task bound to a base and its tokenizer: rows to tensors, tensors to losses and answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from graftune.bases.loading import pad_id
from graftune.datasets.rows import Row
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.metrics.scores import Sums
from graftune.tasks.task import Task

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Batch = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Metrics, one prediction per evaluated row (or group of rows), and notes on how each was computed.

    ``sums`` has, for each prediction, the figures whose sum over any sample gives the primary metric; None where that
    is not made of sums.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    notes: dict[str, str] = field(default_factory=dict)
    sums: Sums | None = None


class BoundTask(ABC):
    """What a task does with one base. Losses are sums per row, so that a batch may be cut and resampled anyhow.

    The loss of a batch is Σ_k sums[:, k].sum() / counts[:, k].sum() over its terms k; most tasks have one.
    """

    def __init__(self, task: Task, config: Any, processor: Any) -> None:
        self.task, self.config, self.processor = task, config, processor
        self.pad_id = pad_id(config, processor)

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row that only the tokenizer shows."""
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """What has to be changed in such rows before this base can read them, in words for the user."""
        return []

    @abstractmethod
    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """The features of one row: one, but for tasks that read a long row in windows.

        Raises GraftuneError, naming the row's line, when it cannot fit the maximum length.
        """

    def encode_many(self, rows: Sequence[Row], encoder: PromptEncoder) -> list[Sequence[Features]]:
        """As `encode` for each row; tasks with one text a row have the tokenizer read all texts at once."""
        return [self.encode(row, encoder) for row in rows]

    @abstractmethod
    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """The tensors of some features, padded on the right to the longest or to `width`, with their `labels`."""

    def model_inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the model takes; the labels are for `losses`."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def outputs(self, model: AdaptedModel, batch: Batch, adapter: str | None) -> Any:
        """What the model gives for a batch, for `losses` and `decode`."""
        return model(**self.model_inputs(batch), adapters=adapter)

    @abstractmethod
    def counts(self, batch: Batch) -> Tensor:
        """How many targets each row has, float32 (rows, terms): what the mean loss is divided by."""

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The summed losses of each row, float32 (rows, terms): mostly cross-entropies.

        `smoothing` is the share of each target's probability that is spread over all classes.
        """

    def next_tokens(self, batch: Batch) -> Tensor | None:
        """The token that each position has to predict, int64 (rows, length), -100 where there is none.

        None for a task whose loss is not one over the vocabulary.
        """
        return None

    @abstractmethod
    def decode(self, outputs: Any, batch: Batch) -> Sequence[Any]:
        """What the outputs say of each of the batch's features."""

    @abstractmethod
    def score(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Evaluation:
        """Metrics and predictions from the decoded answers of every row: a list per row, one for each feature."""

    @property
    def needs_calibration(self) -> bool:
        """Whether something is left open that only a trained adapter can settle."""
        return False

    def calibrate(self, rows: Sequence[Row], features: Sequence[Sequence[Features]], answers: Sequence[Any]) -> Self:
        """The task with that settled, by answers on rows that the adapter was not trained on."""
        return self

    def display(self, row: Row) -> str:
        """The input as a report shows it."""
        return str(row.input)

    def group_key(self, row: Row) -> Any:
        """Rows with an equal key share one prediction, such as several references of one input."""
        return row.line

    def dummy_target(self, row: Row) -> Any:
        """A target that stands in where only the input is known."""
        return "-"
