"""Tasks: from rows of data to features, head, loss, predictions and metrics. The names below load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public name -> the file that has it.
_HOMES = {
    "BoundTask": "bound",
    "Classify": "classify",
    "Cloze": "cloze",
    "Detect": "detect",
    "Evaluation": "bound",
    "Extract": "extract",
    "Features": "features",
    "Generate": "generate",
    "ImageClassify": "image_classify",
    "Instruct": "instruct",
    "MultiLabel": "multi_label",
    "Regress": "regress",
    "Summarize": "summarize",
    "TASKS": "registry",
    "Tag": "tag",
    "Task": "task",
    "Translate": "translate",
    "from_state": "registry",
    "make": "registry",
    "state_of": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
