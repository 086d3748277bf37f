"""Candidates: how they are written, and what is refused."""

from __future__ import annotations

import pytest

from graftune.comparison.candidates import candidate, candidates, split
from graftune.comparison.results import slug
from graftune.config.recipe import Recipe
from graftune.errors import GraftuneError
from graftune.methods import LoRA

RECIPE = Recipe(base="tiny-decoder", sections={"lora": {"rank": 4, "lr": 0.1}})


def test_commas_in_brackets_separate_nothing():
    assert split("lora, prefix(length=3, hidden=4),lora(targets=[q, v])") == [
        "lora", "prefix(length=3, hidden=4)", "lora(targets=[q, v])",
    ]  # fmt: skip


def test_options_go_over_those_of_the_recipe():
    assert candidate("lora", RECIPE).method == LoRA(rank=4)
    found = candidate("lora(targets=[q, v], alpha=2, lr=1e-3)", RECIPE)
    assert found.method == LoRA(rank=4, targets=("q", "v"), alpha=2)
    assert found.training == {"lr": 1e-3}
    own = found.recipe(RECIPE)
    assert own.learning_rate("lora", 9.0) == 1e-3
    assert RECIPE.learning_rate("lora", 9.0) == 0.1
    assert candidate("lora", RECIPE).recipe(RECIPE) is RECIPE


def test_methods_that_stand_there_several_times_are_told_apart():
    given = [LoRA(rank=4), LoRA(rank=8, targets=("q", "o")), "bitfit"]
    found = candidates(given, RECIPE)
    assert [one.label for one in found] == ["lora", "lora(rank=8, targets=[q, o])", "bitfit"]
    assert candidate(found[1].label, RECIPE).method == given[1]
    assert [one.label for one in candidates([LoRA(rank=9)], RECIPE)] == ["lora"]
    assert slug(found[1].label) == "lora_rank=8,_targets=_q,_o"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("lora(rank=4", "cannot be read"),
        ("lora rank", "cannot be read"),
        ("loar(rank=4)", "did you mean 'lora'?"),
        ("lora(rnak=4)", "did you mean 'rank'?"),
        ("lora(rank)", "written key=value"),
        ("lora(rank=x)", "bad value for 'lora.rank'"),
        ("lora(lr=-1)", "greater than 0"),
    ],
)
def test_what_is_refused(given, words):
    with pytest.raises(GraftuneError) as caught:
        candidate(given, RECIPE)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "given", [[], ["lora", "lora"], [LoRA(rank=8), LoRA(rank=8)], ["lora(rank=2)", "lora(rank=2)"]]
)
def test_one_label_stands_once(given):
    with pytest.raises(GraftuneError, match="each once"):
        candidates(given, RECIPE)
