"""The tasks by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from graftune.errors import GraftuneError, unknown
from graftune.tasks.classify import Classify
from graftune.tasks.generate import Generate
from graftune.tasks.task import Task

TASKS: dict[str, type[Task]] = {"generate": Generate, "classify": Classify}


def make(name: str, **options: Any) -> Task:
    """The task of that name with its options.

    Raises GraftuneError for an unknown task, an unknown option, and an option of another task.
    """
    task = _named(name)
    known = options_of(task)
    for option in options:
        if option in known:
            continue
        owners = [other for other in TASKS if option in options_of(TASKS[other])]
        if not owners:
            raise unknown(f"option of task {name!r}:", option, known)
        raise GraftuneError(
            f"task {name!r} has no option {option!r}",
            received=f"{option}={options[option]!r}",
            expected="one of " + ", ".join(sorted(known)),
            do=f"leave it out; did you mean task {owners[0]!r}?",
        )
    return task(**options)


def from_state(state: dict[str, Any]) -> Task:
    """The task whose `state()` this is."""
    return _named(state["task"]).from_state(state)


def options_of(task: type[Task]) -> list[str]:
    """The names of a task's options."""
    return [item.name for item in fields(task) if item.init]  # type: ignore[arg-type]


def _named(name: str) -> type[Task]:
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
