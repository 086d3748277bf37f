"""Usual learning rates: their scaling by closed formulas, and the table of the documentation."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from all_families import FAMILIES
from graftune import bases
from graftune.config import recipe as recipes
from graftune.methods import LoRA
from graftune.methods.method import PRESETS, make
from graftune.methods.rates import DEEP_HEADS, HEADS, Conditions
from graftune.model.adapted import AdaptedModel
from graftune.model.anatomy import Anatomy
from graftune.training.budget import budget_of

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
PLAIN = Conditions("encoder", 768)


def table():
    """Method -> the rates that the page gives it: encoder and decoder, encoder-decoder, images."""
    rows = re.findall(r"^\| (`.*?) \| ([\d.e-]+) \| ([\d.e-]+) \| ([\d.e-]+) \|$", PAGE, re.MULTILINE)
    return {name: tuple(map(float, found)) for names, *found in rows for name in re.findall(r"`([\w-]+)`", names)}


def test_the_page_has_the_rates_of_the_code():
    code = {
        name: tuple(cls.learning_rates[kind] for kind in ("encoder", "encoder-decoder", "vision"))
        for name, (cls, _) in PRESETS.items()
        if cls.trainable
    }
    assert table() == code
    assert all(PRESETS[name][0].learning_rates["decoder"] == rates[0] for name, rates in code.items())


@pytest.mark.parametrize("name", [name for name, (cls, _) in PRESETS.items() if cls.trainable])
def test_rates_follow_width_batch_and_steps(name):
    method = make(name)
    plain = method.usual_rate(PLAIN)
    assert plain == pytest.approx(method.learning_rates["encoder"])
    width = 2.0 if method.falls_with_width else 1.0
    assert method.usual_rate(Conditions("encoder", 192)) == pytest.approx(width * plain)
    assert method.usual_rate(Conditions("encoder", 768, batch_size=64)) == pytest.approx(2 * plain)
    assert method.usual_rate(Conditions("encoder", 768, steps=300 * 16)) == pytest.approx(plain / 2)
    ratio = method.usual_rate(Conditions("encoder", 768, steps=100)) / method.usual_rate(
        Conditions("encoder", 768, steps=7900)
    )
    assert ratio == pytest.approx(3.1, rel=0.05)  # as was found of 79 times the data


def test_the_rank_does_not_matter_at_one_alpha_and_a_step_at_one_scale():
    plain = LoRA().usual_rate(PLAIN)
    assert LoRA(rank=128).usual_rate(PLAIN) == pytest.approx(plain)
    one = [LoRA(rank=rank, alpha=None).usual_rate(PLAIN) for rank in (4, 64)]
    assert one[0] == pytest.approx(3 * one[1])
    assert math.isclose(LoRA(rank=8, alpha=32).usual_rate(PLAIN), plain)


@pytest.mark.parametrize(
    ("family", "kind"), [("bert", "encoder"), ("llama", "decoder"), ("t5", "encoder-decoder"), ("vit", "vision")]
)
def test_bases_are_of_their_kind(family, kind):
    assert Anatomy(FAMILIES[family].base()).kind == kind


def test_a_new_head_has_a_rate_of_its_own():
    base = FAMILIES["vit"].base()
    (head,) = Anatomy(base).heads
    for options, wanted in (({}, None), ({"head_lr": 0.5}, 0.5), ({"lora": {"head_lr": 0.25}, "head_lr": 0.5}, 0.25)):
        recipe = recipes.load(None, {"max_steps": 400, "lr": 1e-3}).model_copy(
            update={
                "head_lr": options.get("head_lr"),
                "sections": {key: value for key, value in options.items() if key == "lora"},
            }
        )
        model = AdaptedModel(base)
        adapter = model.add("a", LoRA(), heads=(head,))
        budget = budget_of(recipe, LoRA(), 100, model)
        on = Conditions("vision", model.anatomy.width, recipe.batch_size, 400)
        rate = HEADS["vision"] * on.scale() if wanted is None else wanted
        of = {
            name: [f for p, f in budget.rates.items() if re.search(p, name)] for name, _ in adapter.named_parameters()
        }
        heads = {name for name in of if of[name]}
        assert heads == {name for name in of if head in name}
        assert all(factors == [pytest.approx(rate / 1e-3)] for name, factors in of.items() if name in heads)
        model.close()


def test_a_head_of_several_maps_starts_lower():
    probe = make("head")
    assert probe.usual_rate(PLAIN) == pytest.approx(HEADS["encoder"])
    assert probe.usual_rate(Conditions("encoder", 768, deep_head=True)) == pytest.approx(DEEP_HEADS["encoder"])


@pytest.mark.parametrize(("name", "deep"), [("BertForSequenceClassification", False), ("tiny-encoder", True)])
def test_which_heads_are_deep(name, deep):
    if name == "tiny-encoder":  # ModernBERT's head is a dense layer, then the classifier
        base = AutoModelForSequenceClassification.from_pretrained(bases.path(name), num_labels=3)
    else:
        sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
        base = BertForSequenceClassification(BertConfig(vocab_size=16, **sizes))
    assert Anatomy(base).has_deep_head is deep
