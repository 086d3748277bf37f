"""Columns: which ones hold the input and the target, as named by the user or guessed from usual names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftune.datasets import values
from graftune.errors import GraftuneError, unknown

INPUTS = (
    *("table", "text", "source", "input", "question", "sentence", "document", "article", "dialogue"),
    *("prompt", "meaning_representation", "mr", "review", "content", "src", "en"),
)
TARGETS = (
    *("target", "text", "label", "output", "answer", "summary", "reference", "highlights", "completion"),
    *("response", "human_reference", "ref", "translation", "sentiment", "class", "tgt", "zh"),
    *("gold_label", "category", "intent", "emotion", "polarity", "stars", "rating"),
)
CLASSES = (
    *("label", "labels", "class", "target", "sentiment", "gold_label", "category", "intent", "emotion", "polarity"),
    *("topic", "stars", "rating", "output", "answer", "completion", "response"),
)

#: Two texts of one row that are read together; the first is the input.
PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence")),
    *(("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b")),
)
#: Columns that count or name rows.
BOOKKEEPING = re.compile(
    r"|_?id|idx|index|guid|uuid|uid|pid|qid|(row|example|sentence|pair)_?id|__index_level_\d+__|unnamed: \d+"
)


def pair_of(columns: Sequence[str]) -> tuple[str, str] | None:
    """The two columns of a sentence pair, as they are spelled in the data."""
    spelled = {_plain(column): column for column in reversed(columns)}
    for first, second in PAIRS:
        if first in spelled and second in spelled:
            return spelled[first], spelled[second]
    return None


def not_read(columns: Sequence[str], read: Sequence[str]) -> list[str]:
    """The columns with data that nothing reads; numbers and names of rows are no data."""
    return [column for column in columns if column not in read and not BOOKKEEPING.fullmatch(_plain(column))]


def one_example(given: Any, wanted: Any) -> list[tuple[Any, Any]]:
    """Input and target of a record make one example."""
    return [(given, wanted)]


@dataclass(frozen=True)
class Columns:
    """What a task reads of a record: usual names of its two columns, and how a value of each is read.

    ``joint`` are names of a column that holds both, from which ``examples`` makes any number of examples; ``prompts``
    says how such a column is read where only inputs are wanted. ``beside`` are names of a target, each with those of a
    second column, without which it says nothing (boxes and their labels); the target's reader gets an object of both.
    ``structured`` are names of columns whose lists and objects are kept for the task, as JSON beside the texts.
    """

    inputs: tuple[str, ...] = INPUTS
    targets: tuple[str, ...] = TARGETS
    input: values.Reader = values.text
    target: values.Reader = values.text
    joint: Mapping[str, values.Reader] = field(default_factory=dict)
    examples: Callable[[Any, Any], list[tuple[Any, Any]]] = one_example
    prompts: Mapping[str, values.Reader] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    structured: tuple[str, ...] = ()

    def choose(self, columns: Sequence[str], input: str | None, target: str | None) -> tuple[str, str, bool]:
        """The names of the input and target columns, and whether any of the two was guessed.

        Raises GraftuneError for a named column that does not exist, for one column named twice,
        and where no pair of usual names is present.
        """
        for name in (input, target):
            if name is not None and name not in columns:
                raise unknown("column", name, columns)
        both = _usual(tuple(self.joint), columns) if input is None else [input]
        if target is None and both and both[0] in self.joint:
            return both[0], both[0], input is None
        if input is not None and input == target:
            raise GraftuneError(
                "the input and the target are the same column",
                received=f"input={input!r}, target={target!r}",
                expected=f"two of the columns {_listed(columns)}",
                do="name a different column for one of them",
            )
        inputs, targets = self._candidates(columns, input, target)
        for first in inputs:
            for second in targets:
                if first != second:
                    return first, second, input is None or target is None
        raise GraftuneError(
            "cannot guess which columns hold the input and the target",
            received=f"columns {_listed(columns)}",
            expected=f"an input among {_listed(self.inputs)} and a target among {_listed(self.targets)}",
            do=f"name the columns: {self._to_type(columns, input, target)}",
        )

    def _candidates(self, columns: Sequence[str], input: str | None, target: str | None) -> tuple[list[str], list[str]]:
        """Columns that may be the input and the target; of a sentence pair the first is the input, neither a target."""
        pair = pair_of(columns) if self.input is values.text and not self.joint else None
        inputs = [input] if input is not None else _usual(self.inputs, columns)
        targets = [target] if target is not None else _usual(self.targets, columns)
        if pair and input is None and target not in pair:
            others = [column for column in targets if column not in pair]
            return ([pair[0]], others) if others else (inputs, targets)
        return inputs, targets

    def _to_type(self, columns: Sequence[str], input: str | None, target: str | None) -> str:
        """The options that name both columns, with the likeliest ones of the data."""
        data = not_read(columns, ()) or list(columns)
        pair = pair_of(data) or ()
        first = input or next(iter([*pair, *_usual(self.inputs, data), *data]), "COLUMN")
        others = [column for column in data if column != first and column not in pair]
        second = target or next(iter([*_usual(self.targets, others), *reversed(others)]), "COLUMN")
        named = "" if pair and input is None else f"--input {shlex.quote(first)} "  # an input that is named is no pair
        return f"{named}--target {shlex.quote(second)}"

    def choose_input(self, columns: Sequence[str], input: str | None) -> str:
        """The name of the input column where no target is needed: the one named, the usual one, or the only one.

        Raises GraftuneError for a column that does not exist, and where none of several is usual.
        """
        if input is not None:
            if input not in columns:
                raise unknown("column", input, columns)
            return input
        pair = pair_of(columns) if self.input is values.text and not self.joint else None
        if pair:
            return pair[0]
        known = _usual((*self.joint, *self.inputs), columns)
        usual = known or list(columns)
        if len(usual) > 1 and not known:
            raise GraftuneError(
                "cannot guess which column holds the input",
                received=f"columns {_listed(columns)}",
                expected=f"one of {_listed(self.inputs)}",
                do=f"name the column: --input {shlex.quote((not_read(columns, ()) or columns)[0])}",
            )
        return usual[0]

    def second(self, columns: Sequence[str], target: str) -> str | None:
        """The column that is read together with the target, if any."""
        names = self.beside.get(_plain(target), ())
        return next((column for column in _usual(names, columns) if column != target), None)

    def reader(self, name: str, *, target: bool) -> values.Reader:
        """How a value of the column is read."""
        if name in self.joint:
            return self.joint[name]
        return self.target if target else self.input


#: Text in both columns.
TEXT = Columns()


def cell(record: Mapping[str, Any], name: str, reader: values.Reader, folder: Path, second: str | None = None) -> Any:
    """One value, or an object of two columns, as its reader gives it. Raises values.InvalidValue with the name."""
    value = record.get(name)
    if value is not None and second is not None:
        value = {_plain(one): record.get(one) for one in (name, second)}
    if value is None or (isinstance(value, float) and value != value):  # NaN: the missing value of Parquet
        raise values.InvalidValue(f"no {name!r}")
    try:
        return reader(value, folder)
    except values.InvalidValue as error:
        raise values.InvalidValue(f"{name!r} {error}") from error


def texts(record: Mapping[str, Any], structured: Sequence[str] = ()) -> dict[str, str]:
    """The columns that a template can name: those with text or a number. The `structured` ones are JSON."""
    found = {name: str(value) for name, value in record.items() if isinstance(value, str | int | float)}
    others = (name for name in structured if isinstance(record.get(name), list | dict))
    return {**found, **{name: json.dumps(record[name], ensure_ascii=False, default=str) for name in others}}


def _usual(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that carry a usual name, in the order of the table of names."""
    return [column for name in names for column in columns if _plain(column) == name]


def _plain(column: str) -> str:
    return column.strip().lower()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
