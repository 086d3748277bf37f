"""Tasks by name: every one is complete, and wrong names and options are answered."""

from __future__ import annotations

import json
from dataclasses import is_dataclass

import pytest
from transformers import BertConfig

import graftune.tasks
from graftune.errors import GraftuneError
from graftune.tasks import TASKS, Task, from_state, make, state_of


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_a_dataclass_with_its_own_name_and_state(name):
    task = make(name)
    assert isinstance(task, Task)
    assert is_dataclass(task)
    assert (task.name, type(task)) == (name, TASKS[name])
    assert from_state(json.loads(json.dumps(state_of(task)))) == task
    settled = make(name, labels=("a", "b")) if hasattr(task, "labels") else task
    assert settled.head(BertConfig()).auto_class.startswith("AutoModelFor")
    assert task.columns.inputs
    assert task.template == getattr(task, "pattern", "{input}")


@pytest.mark.parametrize("name", dir(graftune.tasks))
def test_every_public_name_loads(name):
    assert getattr(graftune.tasks, name) is not None


def test_options_are_passed_on():
    assert make("generate", num_beams=3).num_beams == 3


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("classfy", {}, ["unknown task 'classfy'", "did you mean 'classify'?"]),
        ("generate", {"num_beam": 2}, ["unknown option of task 'generate': 'num_beam'", "mean 'num_beams'?"]),
        (
            "classify",
            {"num_beams": 2},
            ["'classify' has no option 'num_beams'", "did you mean task 'generate'?"],
        ),
        ("classify", {"label": 2}, ["unknown option", "mean 'labels'?"]),
    ],
)
def test_errors(name, options, parts):
    with pytest.raises(GraftuneError) as caught:
        make(name, **options)
    assert all(part in str(caught.value) for part in parts)


def test_the_state_of_another_version_is_refused():
    state = {"task": "classify", "options": {"verbalize": False}, "labels": ["a", "b"]}
    with pytest.raises(GraftuneError, match=r"options that are not known[\s\S]*verbalize[\s\S]*another version"):
        from_state(state)


def test_unknown_attributes():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        graftune.tasks.Nothing
