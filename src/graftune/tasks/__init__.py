"""Tasks: from rows of data to features, head, loss, predictions and metrics. The names below load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftune.tasks.classify import Classify
    from graftune.tasks.cloze import Cloze
    from graftune.tasks.detect import Detect
    from graftune.tasks.extract import Extract
    from graftune.tasks.features import Features
    from graftune.tasks.generate import Generate
    from graftune.tasks.image_classify import ImageClassify
    from graftune.tasks.instruct import Instruct
    from graftune.tasks.registry import TASKS, from_state, make
    from graftune.tasks.regress import Regress
    from graftune.tasks.summarize import Summarize
    from graftune.tasks.tag import Tag
    from graftune.tasks.task import Evaluation, Task
    from graftune.tasks.translate import Translate

_HOMES = {
    "Classify": "classify",
    "Cloze": "cloze",
    "Detect": "detect",
    "Evaluation": "task",
    "Extract": "extract",
    "Features": "features",
    "Generate": "generate",
    "ImageClassify": "image_classify",
    "Instruct": "instruct",
    "Regress": "regress",
    "Summarize": "summarize",
    "TASKS": "registry",
    "Tag": "tag",
    "Task": "task",
    "Translate": "translate",
    "from_state": "registry",
    "make": "registry",
}

__all__ = [
    "TASKS",
    "Classify",
    "Cloze",
    "Detect",
    "Evaluation",
    "Extract",
    "Features",
    "Generate",
    "ImageClassify",
    "Instruct",
    "Regress",
    "Summarize",
    "Tag",
    "Task",
    "Translate",
    "from_state",
    "make",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
