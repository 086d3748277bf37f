"""Which columns hold the input and the target: as named by the user, or guessed from usual names."""

from __future__ import annotations

from collections.abc import Sequence

from graftune.errors import GraftuneError, unknown

INPUTS = (
    *("table", "text", "source", "input", "question", "sentence", "document", "article", "dialogue"),
    *("prompt", "meaning_representation", "mr", "review", "content", "src", "en"),
)
TARGETS = (
    *("target", "text", "label", "output", "answer", "summary", "reference", "highlights", "completion"),
    *("response", "human_reference", "ref", "translation", "sentiment", "class", "tgt", "zh"),
)


def choose(columns: Sequence[str], input: str | None, target: str | None) -> tuple[str, str, bool]:
    """The names of the input and target columns, and whether any of the two was guessed.

    Raises GraftuneError for a named column that does not exist, for one column named twice,
    and where no pair of usual names is present.
    """
    for name in (input, target):
        if name is not None and name not in columns:
            raise unknown("column", name, columns)
    if input is not None and input == target:
        raise GraftuneError(
            "the input and the target are the same column",
            received=f"input={input!r}, target={target!r}",
            expected=f"two of the columns {_listed(columns)}",
            do="name a different column for one of them",
        )
    inputs = [input] if input is not None else _usual(INPUTS, columns)
    targets = [target] if target is not None else _usual(TARGETS, columns)
    for first in inputs:
        for second in targets:
            if first != second:
                return first, second, input is None or target is None
    raise GraftuneError(
        "cannot guess which columns hold the input and the target",
        received=f"columns {_listed(columns)}",
        expected=f"an input among {_listed(INPUTS)} and a target among {_listed(TARGETS)}",
        do="name both columns: input=..., target=...",
    )


def choose_input(columns: Sequence[str], input: str | None) -> str:
    """The name of the input column where no target is needed: the one named, the usual one, or the only one.

    Raises GraftuneError for a column that does not exist, and where none of several is usual.
    """
    if input is not None:
        if input not in columns:
            raise unknown("column", input, columns)
        return input
    usual = _usual(INPUTS, columns) or list(columns)
    if len(usual) > 1 and not _usual(INPUTS, columns):
        raise GraftuneError(
            "cannot guess which column holds the input",
            received=f"columns {_listed(columns)}",
            expected=f"one of {_listed(INPUTS)}",
            do="name the column: --input COLUMN",
        )
    return usual[0]


def _usual(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that carry a usual name, in the order of the table of names."""
    return [column for name in names for column in columns if column.lower() == name]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
