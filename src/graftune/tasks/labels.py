"""Labels: the classes that training rows show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graftune.errors import GraftuneError


def labels_of(targets: Iterable[str], named: Sequence[str] | None = None, least: int = 2) -> tuple[str, ...]:
    """The labels that the user has named, else all that occur, in a natural order.

    Raises GraftuneError for fewer than `least`, and for one that is named twice.
    """
    if named:
        return _distinct(named)
    names = sorted(set(targets), key=natural)
    if len(names) < least:
        raise GraftuneError(
            f"classification needs {'two labels' if least == 2 else 'a label'} or more",
            received=", ".join(map(repr, names)) or "none",
            expected=f"at least {least} different target{'s' * (least > 1)} in the training rows",
            do="check the target column",
        )
    return tuple(names)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The labels that a user names. Raises GraftuneError where one is named twice."""
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise GraftuneError("a label is named twice", received=", ".join(map(repr, twice)), expected="different labels")
    return tuple(names)


def settled(labels: tuple[str, ...] | None, task: str) -> tuple[str, ...]:
    """The labels. Raises GraftuneError where they are still open."""
    if not labels:
        raise GraftuneError(
            "the labels are not known yet",
            received=f"a {task} task without labels",
            expected="a task that was fitted to training rows",
            do="use task.fit(rows), or name them: labels=[…]",
        )
    return labels


def unknown_label(label: str, labels: Sequence[str]) -> str:
    """What is wrong with a label that is not among the known ones."""
    shown = ", ".join(map(repr, labels[:12])) + (f" and {len(labels) - 12} more" if len(labels) > 12 else "")
    return f"unknown label {label!r} (known: {shown})"


def natural(label: str) -> tuple[bool, int, str]:
    """Whole numbers first and by value, then names: 2 before 10."""
    number = label.removeprefix("-").isdecimal()
    return (not number, int(label) if number else 0, label)
