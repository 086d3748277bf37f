"""The keys of a recipe: what they say, the flags made of them, and the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from graftune.cli import app
from graftune.config import recipe as recipes
from graftune.config.described import commands
from graftune.config.keys import GROUPS, KEYS, group_of
from graftune.config.reference import page
from graftune.errors import GraftuneError
from graftune.tasks.registry import TASKS

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = {name: field for group in GROUPS.values() for name, field in group.model_fields.items()}


def test_a_key_stands_in_one_group_and_says_what_it_is():
    assert sum(len(group.model_fields) for group in GROUPS.values()) == len(KEYS)
    assert all(len(field.description) > 10 and field.description.endswith(".") for field in FIELDS.values())


def test_the_page_is_what_the_keys_say():
    assert page() in (DOCS / "recipes.md").read_text(encoding="utf-8")


def test_the_task_key_names_every_task():
    named = re.findall(r"[a-z-]+", FIELDS["task"].description.split(". ")[0])
    assert set(TASKS) <= set(named)


@pytest.mark.parametrize("command", ["train", "compare", "evaluate", "generate"])
def test_a_command_has_a_flag_for_each_of_its_keys(command):
    options = {one.name: one for one in get_command(app).commands[command].params}
    own = {name for name, field in FIELDS.items() if command in commands(field)}
    assert own and own <= set(options)
    for name in own:
        assert f"--{name.replace('_', '-')}" in options[name].opts
    others = {name for name in KEYS - own if name in options}
    assert others == ({"eval"} if command == "generate" else set())  # there it names inputs, not data of a recipe


@pytest.mark.parametrize(
    "text",
    [
        "batch_size: 4\nprecision: fp32\nrows: [50, all]\n",
        "training: {batch_size: 4}\nmemory: {precision: fp32}\ncompare: {rows: [50, all]}\n",
    ],
)
def test_a_key_may_stand_below_its_group(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    found = recipes.load(str(file), {}, ("data.eval=0.2",))
    assert (found.batch_size, found.precision, found.compare.rows, found.eval) == (4, "fp32", [50, "all"], "0.2")


def test_a_key_below_another_group_is_named(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("training: {precison: fp32}\n")
    with pytest.raises(GraftuneError, match="key of training"):
        recipes.load(str(file), {})
    assert group_of("precision") == "memory" and group_of("nothing") is None


def test_flags_reach_the_recipe(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("graftune.comparison.compare.compare", lambda base, **given: seen.append(given["recipe"]))
    monkeypatch.setattr("graftune.cli.live.SPEAKS", False)
    arguments = ["compare", "--methods", "lora,lora(rank=4, targets=[q, v])", "--known", "lora.lr=1e-3", "--keep-best"]
    arguments += [
        "--rows",
        "50,all",
        "--workers",
        "ray",
        "--head-lr",
        "0.1",
        "--limit",
        "ms=20",
        "--trackers",
        "tensorboard",
    ]
    get_command(app).main(arguments, standalone_mode=False)
    (recipe,) = seen
    assert recipe.compare.methods == ["lora", "lora(rank=4, targets=[q, v])"]
    assert (recipe.compare.known, recipe.compare.limit) == ({"lora": 1e-3}, {"ms": "20"})
    assert (recipe.compare.rows, recipe.compare.workers) == ([50, "all"], "ray")
    assert (recipe.keep_best, recipe.head_lr, recipe.trackers) == (True, 0.1, ["tensorboard"])
