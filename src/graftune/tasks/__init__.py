"""Tasks: from rows of data to features, head, loss, predictions and metrics.

The names below load on first use, so that `graftune.tasks.data` works without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftune.tasks.classify import Classify
    from graftune.tasks.data import Row, Table, grouped, read
    from graftune.tasks.generate import Generate
    from graftune.tasks.registry import TASKS, from_state, make
    from graftune.tasks.task import Evaluation, Features, Task
    from graftune.tasks.template import Encoded, Template

_HOMES = {
    "Classify": "classify",
    "Encoded": "template",
    "Evaluation": "task",
    "Features": "task",
    "Generate": "generate",
    "Row": "data",
    "TASKS": "registry",
    "Table": "data",
    "Task": "task",
    "Template": "template",
    "from_state": "registry",
    "grouped": "data",
    "make": "registry",
    "read": "data",
}

__all__ = [
    "TASKS",
    "Classify",
    "Encoded",
    "Evaluation",
    "Features",
    "Generate",
    "Row",
    "Table",
    "Task",
    "Template",
    "from_state",
    "grouped",
    "make",
    "read",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
