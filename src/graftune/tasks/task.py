"""What every task is: the contract between rows of data, a model's tensors and a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from graftune.datasets.columns import TEXT, Columns
from graftune.datasets.rows import Row, bad_lines
from graftune.errors import GraftuneError
from graftune.tasks.batches import IGNORED
from graftune.tasks.features import Features, Reading
from graftune.tasks.running import Progress, answered, first_virtual_id, pad_id, to_device
from graftune.templates.template import Template

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Trial = Callable[[str | None], object]


@dataclass(frozen=True)
class Evaluation:
    """Metrics, one prediction per evaluated row (or group of rows), and notes on how each was computed."""

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    notes: dict[str, str] = field(default_factory=dict)


class Task(ABC):
    """A task. Its subclasses are dataclasses whose fields are the task's options."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """The primary metric."""
    columns: ClassVar[Columns] = TEXT
    """What is read of each record."""
    processor: ClassVar[str] = "AutoTokenizer"
    """The Transformers Auto class of what turns inputs into numbers."""
    float32: ClassVar[bool] = False
    """Whether the base has to compute in float32, since its own loss does."""
    learned: ClassVar[tuple[str, ...]] = ()
    """Attributes that `prepare` sets and that are kept with an adapter."""

    @property
    def instruction(self) -> str:
        """What to do, in words: the hard prompt where the user gives none."""
        return "Read this and answer."

    @property
    def template(self) -> str:
        """The task's own template, in which a method's stands for `{input}`."""
        return getattr(self, "pattern", "{input}")

    @abstractmethod
    def auto_class(self, config: Any) -> str:
        """The Transformers Auto class that loads a base of this config for the task."""

    @abstractmethod
    def head_names(self, base: Any) -> tuple[str, ...]:
        """The freshly initialised modules of `base` that every method has to train."""

    def prepare(self, rows: Sequence[Row]) -> None:  # noqa: B027 - most tasks have nothing to learn
        """Learn from the training rows what the task needs to know, such as the labels."""

    def bind(self, config: Any, processor: Any) -> None:  # noqa: B027 - many tasks do the same on every base
        """Learn from the base's config and its tokenizer or image processor what depends on them."""

    def problems(self, rows: Sequence[Row]) -> Mapping[int, str]:
        """What is wrong with each row that this task cannot use, by its line."""
        return {}

    def check(self, rows: Sequence[Row]) -> None:
        """Raise GraftuneError for rows that this task cannot use, all of them at once."""
        if problems := self.problems(rows):
            raise bad_lines(self.name, problems, self.good_row)

    @property
    def good_row(self) -> str:
        """What a row has to be, in words."""
        return "rows that the task can use"

    def key(self, row: Row) -> Any:
        """What rows have in common that are given one answer: nothing, where each has its own."""
        return row.line

    def shown(self, row: Row) -> str:
        """The input as a report shows it."""
        return str(row.input)

    def blank(self, input: Any) -> Any:
        """A target that stands in where only the input is known."""
        return "-"

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`; some tasks add what the tokenizer tells."""
        return {}

    @abstractmethod
    def encode(self, row: Row, reading: Reading) -> Features:
        """The features of one row.

        Raises GraftuneError, naming the row's line, when it cannot fit `max_length`.
        """

    def parts(self, row: Row, reading: Reading) -> Sequence[Features]:
        """The features that a row is trained on: one, but for tasks that read a long row in windows."""
        return [self.encode(row, reading)]

    @abstractmethod
    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (rows, longest or `width`), padded on the right, and `labels`."""

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The part of a batch that the model takes; the labels are for `loss`."""
        return {name: tensor for name, tensor in batch.items() if name != "labels"}

    def outputs(self, model: AdaptedModel, batch: dict[str, Any], adapter: str | None) -> Any:
        """What the model gives for a batch, for `loss` and for whoever reads answers off it."""
        return model(**self.inputs(batch), adapters=adapter)

    @abstractmethod
    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean loss, a float32 scalar, of a model's outputs for `batch`: mostly a cross-entropy.

        `smoothing` is the share of each target's probability that is spread over all classes.
        """

    def targets(self, batch: dict[str, Tensor]) -> int:
        """How many targets the mean of `loss` is over."""
        return int((batch["labels"] != IGNORED).sum())

    def answers(self, batch: dict[str, Tensor]) -> Tensor | None:
        """The token that each position has to predict, int64 (rows, length), -100 where there is none.

        None for a task whose loss is not one over the vocabulary.
        """
        return None

    def demonstration(self, row: Row) -> str:
        """One solved example as text, for few-shot prompts. Raises GraftuneError for a task without words."""
        raise GraftuneError(
            f"solved examples as text are not for the task {self.name!r}",
            received="a method that shows examples",
            expected="a task that answers in words",
            do="leave this method out, or describe the task with words: cloze, generate",
        )

    def demonstrations(self, rows: Sequence[Row]) -> str:
        """Solved examples as text: `Template(Template.literal(text) + "{input}")` puts them first."""
        return "".join(self.demonstration(row) for row in rows)

    def evaluate(
        self,
        model: AdaptedModel,
        tokenizer: Any,
        rows: Sequence[Row],
        adapter: str | None,
        template: Template,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Run `adapter` (None = the plain base) on `rows`; `progress` gets the number of rows just done.

        Raises GraftuneError for no rows, and for rows that the task cannot use.
        """
        need_rows(rows)
        self.check(rows)
        reading = Reading(tokenizer, template, first_virtual_id(model), max_length)
        parts = [self.parts(row, reading) for row in rows]
        flat = [part for own in parts for part in own]
        padding = self.padding(model, tokenizer)
        told = progress if len(flat) == len(rows) else None
        results = iter(answered(self, model, adapter, flat, padding, batch_size, told))
        found = [[next(results) for _ in own] for own in parts]
        if progress is not None and told is None:
            progress(len(rows))
        return self.judge(rows, parts, found)

    def read(self, outputs: Any, batch: dict[str, Any]) -> Sequence[Any]:
        """What the outputs say of each of the batch's features, for `judge`."""
        raise NotImplementedError

    def judge(self, rows: Sequence[Row], parts: Sequence[Sequence[Features]], found: Sequence[list[Any]]) -> Evaluation:
        """Metrics and predictions from what was read for every part of every row."""
        raise NotImplementedError

    def trial(self, model: AdaptedModel, processor: Any, rows: Sequence[Row], template: Template) -> Trial:
        """What inference is timed on: a call that answers these rows with an adapter or none, once.

        One forward pass, here; tasks that write text write the same number of tokens on every side.
        """
        reading = Reading(processor, template, first_virtual_id(model), model.positions)
        features = [self.encode(row, reading) for row in rows]
        batch = self.inputs(to_device(self.collate(features, self.padding(model, processor)), model))

        def once(adapter: str | None) -> object:
            with torch.no_grad():
                return model(**batch, adapters=adapter)

        return once

    def padding(self, model: AdaptedModel, processor: Any) -> int:
        """The id to pad with: the one the base itself knows, else the tokenizer's."""
        known = getattr(model.config.get_text_config(), "pad_token_id", None)
        return pad_id(processor) if known is None else int(known)

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs to make an equal task, as JSON values."""
        options = sorted(item.name for item in fields(self) if item.init)  # type: ignore[arg-type]
        known = {name: _plain(getattr(self, name)) for name in self.learned}
        return {"task": self.name, "options": {name: getattr(self, name) for name in options}, **known}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The task that `state()` described."""
        task = cls(**state["options"])
        for name in cls.learned:
            value = state[name]
            setattr(task, name, tuple(value) if isinstance(value, list) else value)
        return task


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def need_rows(rows: Sequence[Row]) -> None:
    """Raise GraftuneError for an evaluation of nothing, whose metrics would mean nothing."""
    if not rows:
        raise GraftuneError(
            "no rows to evaluate", received="an empty list", expected="at least one row", do="check the data"
        )
