"""What every task is: the contract between rows of data, a model's tensors and a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.tasks.batches import IGNORED
from graftune.tasks.data import Row
from graftune.tasks.template import Encoded, Template

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Features:
    """One encoded row: its ids, a label per id (-100 = no target) or one label, and whether input was cut."""

    ids: list[int]
    labels: list[int] | int
    truncated: bool = False


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
    """The primary metric; higher is better."""

    @property
    def instruction(self) -> str:
        """What to do, in words: the hard prompt where the user gives none."""
        return "Read this and answer."

    @property
    @abstractmethod
    def auto_class(self) -> str:
        """The Transformers Auto class that loads a base for this task."""

    @abstractmethod
    def head_names(self, base: Any) -> tuple[str, ...]:
        """The freshly initialised modules of `base` that every method has to train."""

    def prepare(self, rows: Sequence[Row]) -> None:
        """Learn from the training rows what the task needs to know, such as the labels."""
        self.check(rows)

    def check(self, rows: Sequence[Row]) -> None:  # noqa: B027 - any row will do, unless a task says more
        """Raise GraftuneError for rows that this task cannot use, all of them at once."""

    def model_arguments(self, tokenizer: Any = None) -> dict[str, Any]:
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

    @abstractmethod
    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (rows, longest or `width`), padded on the right, and `labels`."""

    def inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of a batch that the model takes; the labels are for `loss`."""
        return {name: tensor for name, tensor in batch.items() if name != "labels"}

    @abstractmethod
    def loss(self, outputs: Any, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy, a float32 scalar, of a model's outputs for `batch`.

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

    @abstractmethod
    def demonstration(self, row: Row) -> str:
        """One solved example as text, for few-shot prompts."""

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

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs to make an equal task, as JSON values."""
        options = {item.name for item in fields(self) if item.init}  # type: ignore[arg-type]
        values = asdict(self)  # type: ignore[call-overload]
        return {"task": self.name, "options": {name: values[name] for name in sorted(options)}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The task that `state()` described."""
        return cls(**state["options"])


def fit(
    template: Template,
    row: Row,
    tokenizer: Any,
    first_virtual_id: int,
    max_length: int | None,
    *,
    reserved: int = 0,
    suffix: bool = True,
) -> Encoded:
    """The filled template, within `max_length` less the `reserved` tokens that follow it.

    Raises GraftuneError, naming the row's line, when even a single token of the input does not fit.
    """
    limit = None if max_length is None else max_length - reserved
    try:
        return template.encode(tokenizer, row.input, first_virtual_id, limit, suffix=suffix)
    except GraftuneError as error:
        if limit is None:  # then length is not the reason
            raise
        raise GraftuneError(
            f"line {row.line}: the sequence is too long",
            received=f"{reserved} tokens after the template, and a template that fits no input in the rest",
            expected=f"at most {max_length} tokens, at least one of them the input's",
            do="raise the maximum length, shorten the template, or delete the row",
        ) from error


def first_virtual_id(model: AdaptedModel) -> int:
    """The id of the first virtual token: the number of rows of the base's embedding."""
    return int(model.base.get_input_embeddings().weight.shape[0])


def pad_id(tokenizer: Any) -> int:
    """The id to pad with: the tokenizer's own, else its end of text, which the attention mask hides."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def to_device(batch: dict[str, Tensor], model: AdaptedModel) -> dict[str, Tensor]:
    """The batch on the device of the base's embedding, where its ids are looked up."""
    device = model.base.get_input_embeddings().weight.device
    return {name: tensor.to(device) for name, tensor in batch.items()}


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
