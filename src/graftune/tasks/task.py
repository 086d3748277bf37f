"""What every task is: the contract between rows of data, a model's tensors and a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.tasks.batches import IGNORED, by_length
from graftune.tasks.columns import TEXT, Columns
from graftune.tasks.data import Row, bad_lines
from graftune.tasks.template import Encoded, Template, Value

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Progress = Callable[[int], None]
Trial = Callable[[str | None], object]


@dataclass(frozen=True)
class Features:
    """One encoded row: its ids, what it is trained on (a label an id, -100 = none; or what the task has instead).

    `truncated` says whether input was cut.
    """

    ids: list[int]
    labels: Any
    truncated: bool = False

    @property
    def length(self) -> int:
        """How many positions of the base it takes."""
        return len(self.ids)


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
    def encode(
        self,
        row: Row,
        tokenizer: Any,
        template: Template,
        first_virtual_id: int,
        max_length: int | None = None,
    ) -> Features:
        """The features of one row.

        Raises GraftuneError, naming the row's line, when it cannot fit `max_length`.
        """

    def parts(
        self,
        row: Row,
        tokenizer: Any,
        template: Template,
        first_virtual_id: int,
        max_length: int | None = None,
    ) -> Sequence[Features]:
        """The features that a row is trained on: one, but for tasks that read a long row in windows."""
        return [self.encode(row, tokenizer, template, first_virtual_id, max_length)]

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

    @abstractmethod
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
        """Run `adapter` (None = the plain base) on `rows`; `progress` gets the number of rows just done."""

    def trial(self, model: AdaptedModel, processor: Any, rows: Sequence[Row], template: Template) -> Trial:
        """What inference is timed on: a call that answers these rows with an adapter or none, once.

        One forward pass, here; tasks that write text write the same number of tokens on every side.
        """
        features = [self.encode(row, processor, template, first_virtual_id(model), model.positions) for row in rows]
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


def answered(
    task: Task,
    model: AdaptedModel,
    adapter: str | None,
    features: Sequence[Features],
    padding: int,
    batch_size: int,
    read: Callable[[Any, dict[str, Any]], Sequence[Any]],
    progress: Progress | None = None,
) -> list[Any]:
    """What `read(outputs, batch)` finds for each of the features, in their order; one forward pass a batch."""
    found: list[Any] = [None] * len(features)
    with evaluating(model):
        for indices in by_length([item.length for item in features], batch_size):
            batch = to_device(task.collate([features[i] for i in indices], padding), model)
            outputs = task.outputs(model, batch, adapter)
            for i, value in zip(indices, read(outputs, batch), strict=True):
                found[i] = value
            if progress is not None:
                progress(len(indices))
    return found


def fit(
    template: Template,
    row: Row,
    tokenizer: Any,
    first_virtual_id: int,
    max_length: int | None,
    *,
    reserved: int = 0,
    suffix: bool = True,
    values: Mapping[str, Value] | None = None,
) -> Encoded:
    """The template filled with the row's columns, or `values` over them, within `max_length` less `reserved` tokens.

    Raises GraftuneError, naming the row's line, when even a single token of a column does not fit.
    """
    limit = None if max_length is None else max_length - reserved
    try:
        return template.encode(tokenizer, {**row.texts, **(values or {})}, first_virtual_id, limit, suffix=suffix)
    except GraftuneError as error:
        if limit is None or "no room" not in str(error):  # then length is not the reason
            raise
        raise GraftuneError(
            f"line {row.line}: the sequence is too long",
            received=f"{reserved} tokens after the template, and a template that fits no input in the rest",
            expected=f"at most {max_length} tokens, at least one of them the input's",
            do="raise the maximum length, shorten the template, or delete the row",
        ) from error


def first_virtual_id(model: AdaptedModel) -> int:
    """The id of the first virtual token: the number of rows of the base's embedding; 0 where inputs are no tokens."""
    table = model.base.get_input_embeddings()
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0


def pad_id(tokenizer: Any) -> int:
    """The id to pad with: the tokenizer's own, else its end of text, which the attention mask hides."""
    for name in ("pad_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    return 0


def to_device(batch: dict[str, Any], model: AdaptedModel) -> dict[str, Any]:
    """The batch on the base's device: its tensors, and those in lists and dictionaries."""
    device = next(model.base.parameters()).device

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if isinstance(value, dict):
            return {name: moved(one) for name, one in value.items()}
        return value.to(device) if isinstance(value, Tensor) else value

    found = {name: moved(value) for name, value in batch.items()}
    if "pixel_values" in found:  # a table of embeddings gives its own precision; pixels come in float32
        found["pixel_values"] = found["pixel_values"].to(model.base.dtype)
    return found


def need_rows(rows: Sequence[Row]) -> None:
    """Raise GraftuneError for an evaluation of nothing, whose metrics would mean nothing."""
    if not rows:
        raise GraftuneError(
            "no rows to evaluate", received="an empty list", expected="at least one row", do="check the data"
        )


def truncation(count: int, total: int) -> str:
    """The note that says how many inputs were cut."""
    return f"{count} of {total} inputs cut to fit the maximum length"


@contextmanager
def evaluating(model: AdaptedModel) -> Iterator[None]:
    """No gradients and no dropout inside; every module's own mode is restored after."""
    roots = [root for root in (model, model.base) if isinstance(root, nn.Module)]
    modes = {module: module.training for root in roots for module in root.modules()}
    for module in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
