"""The tasks by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from graftune.errors import GraftuneError, unknown
from graftune.tasks.classify import Classify
from graftune.tasks.cloze import Cloze
from graftune.tasks.detect import Detect
from graftune.tasks.extract import Extract
from graftune.tasks.generate import Generate
from graftune.tasks.image_classify import ImageClassify
from graftune.tasks.instruct import Instruct
from graftune.tasks.regress import Regress
from graftune.tasks.summarize import Summarize
from graftune.tasks.tag import Tag
from graftune.tasks.task import Task
from graftune.tasks.translate import Translate

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Generate,
        Translate,
        Summarize,
        Instruct,
        Classify,
        Cloze,
        Tag,
        Extract,
        Regress,
        ImageClassify,
        Detect,
    )
}


def make(name: str, **options: Any) -> Task:
    """The task of that name with its options.

    Raises GraftuneError for an unknown task, an unknown option, and an option of another task.
    """
    task = named(name)
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
    """The task whose `state()` this is. Raises GraftuneError for options that it does not have (any more)."""
    task = named(state["task"])
    if strange := sorted(set(state["options"]) - set(options_of(task))):
        raise GraftuneError(
            f"the adapter's task {task.name!r} has options that are not known",
            received=", ".join(strange),
            expected="options among " + ", ".join(options_of(task)),
            do="it was made by another version of Graftune: train it again, or name the task yourself: --task",
        )
    return task.from_state(state)


def options_of(task: type[Task]) -> list[str]:
    """The names of a task's options."""
    return [item.name for item in fields(task) if item.init]  # type: ignore[arg-type]


def named(name: str) -> type[Task]:
    """The class of a task. Raises GraftuneError for an unknown name."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
