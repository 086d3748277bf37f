"""Labels: the classes that training rows show, and the head that tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graftune.errors import GraftuneError


def found(labels: Iterable[str], least: int = 2) -> tuple[str, ...]:
    """All labels in a natural order. Raises GraftuneError for fewer than `least`."""
    names = sorted(set(labels), key=natural)
    if len(names) < least:
        raise GraftuneError(
            f"classification needs {'two labels' if least == 2 else 'a label'} or more",
            received=", ".join(map(repr, names)) or "none",
            expected=f"at least {least} different target{'s' * (least > 1)} in the training rows",
            do="check the target column",
        )
    return tuple(names)


def known(labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    """The labels. Raises GraftuneError where they have not been learned yet."""
    if not labels:
        raise GraftuneError(
            "the labels are not known yet",
            received=f"a new {task} task",
            expected="a task that has seen the training rows",
            do="call prepare(rows) first, or give a verbalizer",
        )
    return labels


def unknown(label: str, labels: Sequence[str]) -> str:
    """What is wrong with a label that is not among the known ones."""
    shown = ", ".join(map(repr, labels[:12])) + (f" and {len(labels) - 12} more" if len(labels) > 12 else "")
    return f"unknown label {label!r} (known: {shown})"


def arguments(labels: Sequence[str]) -> dict[str, Any]:
    """What `from_pretrained` has to be told to make a head for these labels."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def heads(base: Any, auto_class: str) -> tuple[str, ...]:
    """Modules with parameters beside the base's encoder or decoder, without its pooler.

    Raises GraftuneError for a base that has a language model's head, or none.
    """
    body = base.base_model
    names = tuple(
        name
        for name, module in base.named_children()
        if module is not body and name != "pooler" and any(True for _ in module.parameters())
    )
    if body is base or not names or base.get_output_embeddings() is not None:
        raise GraftuneError(
            "the base has no classification head",
            received=type(base).__name__,
            expected=f"a base from {auto_class}",
            do=f"load it with {auto_class}, or answer in words: task cloze",
        )
    return names


def natural(label: str) -> tuple[bool, int, str]:
    """Whole numbers first and by value, then names: 2 before 10."""
    number = label.removeprefix("-").isdecimal()
    return (not number, int(label) if number else 0, label)
