"""A task: what the columns of the data mean, which head a base needs, and how it is bound to a base.

A task lives in three stages, and none changes an object:

1. *options*: a frozen dataclass of what a user may set; some are left open (None), such as the labels;
2. *fitted*: `fit` returns the same task with nothing left open, settled by the training rows; adapters keep it;
3. *bound*: `bind` gives the `BoundTask` of one base and tokenizer, which knows tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from graftune.bases.head import Head
from graftune.datasets.columns import TEXT, Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.templates.template import Template

if TYPE_CHECKING:
    from graftune.tasks.bound import BoundTask


class Task(ABC):
    """A task. Its subclasses are frozen dataclasses whose fields are the task's options."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """The primary metric."""
    columns: ClassVar[Columns] = TEXT
    """What is read of each record."""
    new_head: ClassVar[bool] = True
    """Whether a base gets a head for it that every method trains; else it answers in words."""
    chat: ClassVar[bool] = False
    """Whether the tokenizer's chat template is what inputs are written in."""
    processor: ClassVar[str] = "AutoTokenizer"
    """The Transformers Auto class of what turns inputs into numbers."""

    @property
    def instruction(self) -> str:
        """What to do, in words: the hard prompt where the user gives none."""
        return "Read this and answer."

    @property
    def template(self) -> str:
        """The task's own template, in which a method's stands for `{input}`."""
        return getattr(self, "pattern", "{input}")

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the task reads beside input and target."""
        return Template(self.template).columns

    @property
    def expectation(self) -> str:
        """What a row has to be, in words."""
        return "rows that the task can use"

    def fit(self, rows: Sequence[Row]) -> Self:
        """The task with what was left open settled by the training rows. Raises GraftuneError where they cannot."""
        return self

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row that the fitted task cannot use; looked at before anything is loaded."""
        return None

    @abstractmethod
    def head(self, config: Any) -> Head:
        """The head that a base of this config needs."""

    @abstractmethod
    def bind(self, config: Any, processor: Any) -> BoundTask:
        """The task on a base of this config, with its tokenizer or image processor."""

    def without_training(self) -> Task:
        """The task for a method that trains nothing, and so has no new head."""
        return self

    def demonstration(self, row: Row) -> str:
        """One solved example as text, for few-shot prompts. Raises GraftuneError for a task without words."""
        raise GraftuneError(
            f"solved examples as text are not for the task {self.name!r}",
            received="a method that shows examples",
            expected="a task that answers in words",
            do="leave this method out, or describe the task with words: cloze, generate",
        )
