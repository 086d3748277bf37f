"""The tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
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
from graftune.tasks.multi_label import MultiLabel
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
        MultiLabel,
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
    return task(**{option: tuple(value) if isinstance(value, list) else value for option, value in options.items()})


def state_of(task: Task) -> dict[str, Any]:
    """A fitted task as JSON values, from which `from_state` makes an equal one."""
    options = {option: getattr(task, option) for option in options_of(type(task))}
    plain = {option: list(value) if isinstance(value, tuple) else value for option, value in options.items()}
    return {"task": task.name, "options": plain}


def from_state(state: Mapping[str, Any]) -> Task:
    """The task whose state this is. Raises GraftuneError for options that it does not have (any more)."""
    task = named(state["task"])
    # Earlier versions kept what was learned from the rows beside the options.
    options = {**state["options"], **{key: value for key, value in state.items() if key not in ("task", "options")}}
    if strange := sorted(set(options) - set(options_of(task))):
        raise GraftuneError(
            f"the adapter's task {task.name!r} has options that are not known",
            received=", ".join(strange),
            expected="options among " + ", ".join(options_of(task)),
            do="it was made by another version of Graftune: train it again, or name the task yourself: --task",
        )
    return make(task.name, **options)


def options_of(task: type[Task]) -> list[str]:
    """The names of a task's options."""
    return [item.name for item in fields(task) if item.init]  # type: ignore[arg-type]


def named(name: str) -> type[Task]:
    """The class of a task. Raises GraftuneError for an unknown name."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
