"""Recipes: where a value comes from, that a dumped recipe is the same run, and what is refused."""

from __future__ import annotations

import pytest

from graftune.config import recipe as recipes
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, make


def test_settings_go_before_flags_before_the_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 1\nbatch_size: 1\nmax_steps: 1\nlora:\n  rank: 2\n  alpha: 3\n")
    recipe = recipes.load(str(file), {"seed": 2, "batch_size": 2, "max_steps": None}, ("seed=3", "lora.rank=4"))
    assert (recipe.seed, recipe.batch_size, recipe.max_steps) == (3, 2, 1)
    assert recipe.section("lora") == {"rank": 4, "alpha": 3}


def test_a_flag_replaces_the_length_of_the_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("max_steps: 100\n")
    recipe = recipes.load(str(file), {"epochs": 2.0})
    assert (recipe.max_steps, recipe.epochs) == (None, 2)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_dumped_recipe_loads_as_itself(tmp_path, name):
    settings = (f"{name}.lr=1e-3", "generate.separator= -> ")
    first = recipes.load(None, {"lr": 0.1, "seed": 4}, settings, method=name)
    text = recipes.dump(recipes.with_methods(first, [make(name)], method=name))
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    again = recipes.load(str(file), {})
    assert again.method == name
    assert again.learning_rate(name, 7.0) == 1e-3
    assert make(name, **again.section(name)) == make(name)
    assert recipes.dump(again) == text


def test_rates():
    recipe = recipes.load(None, {"lr": 0.5}, ("lora.lr=0.25",))
    assert recipe.learning_rate("lora", 1.0) == 0.25
    assert recipe.learning_rate("prefix", 1.0) == 0.5
    assert recipes.load(None, {}).learning_rate("prefix", 1.0) == 1.0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("p-tuning.pattern={P:2}{input} x: {P:1}", "{P:2}{input} x: {P:1}"),
        ("p-tuning.pattern={P:2}{input}", "{P:2}{input}"),
        ('hard-prompt.pattern="{input}\\n"', "{input}\n"),
        ("hard-prompt.pattern={input}", "{input}"),
        ("lora.targets=all", "all"),
        ("lora.targets=[q, k]", ("q", "k")),
        ("lora.rslora=true", True),
        ("lora.alpha=null", None),
        ("lora.alpha=1e1", 10.0),
        ("generate.separator=: ", ": "),
    ],
)
def test_settings_are_read_as_meant(setting, expected):
    section, _, rest = setting.partition(".")
    assert recipes.load(None, {}, (setting,)).section(section)[rest.partition("=")[0]] == expected


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lora.rank=two", "bad value for 'lora.rank'"),
        ("lora.rank=2.5", "bad value for 'lora.rank'"),
        ("lora.lr=fast", "bad value for 'lora.lr'"),
        ("lora.lr=0", "greater than 0"),
        ("generate.max_new_tokens=many", "bad value for 'generate.max_new_tokens'"),
        ("generate.lr=1", "unknown option of task 'generate'"),
        ("lora.rnak=2", r"did you mean 'rank'\?"),
        ("laro.rank=2", r"did you mean 'lora'\?"),
        ("bathc_size=2", r"did you mean 'batch_size'\?"),
        ("batch_size=0", "greater than or equal to 1"),
        ("warmup=1", "less than 1"),
        ("precision=fp8", "'fp32', 'bf16' or 'auto'"),
        ("lora.rank", "--set needs key=value"),
        ("sections=1", "unknown recipe key"),
    ],
)
def test_bad_settings_are_refused(setting, words):
    with pytest.raises(GraftuneError, match=words):
        recipes.load(None, {}, (setting,))
