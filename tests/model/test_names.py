"""Names of adapters and of the base's own parameters, and what is left where attaching fails."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from families import base, batch
from graftune.errors import GraftuneError
from graftune.methods import BitFit, FullFineTuning, LoRA, PrefixTuning
from graftune.methods.bottleneck_adapter import BottleneckAdapter
from graftune.methods.method import Method
from graftune.model import keeper
from graftune.model.adapted import AdaptedModel
from graftune.model.adapter import Adapter
from graftune.model.context import Context
from graftune.parts import KeyValueRows, LinearSite, LowRank, ParameterCopy
from methods_under_test import METHODS, disturb

#: Everything that a module or a dictionary of modules has already.
TAKEN = sorted({*dir(nn.ModuleDict()), *dir(nn.ParameterDict())})
MODEL = AdaptedModel(base("gpt2"))


def logits(model: AdaptedModel, adapters: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch(), adapters=adapters).logits


def works(name: str, folder: Path) -> None:
    """An adapter of this name computes, is saved, listed, put back and removed as one of any other name."""
    model = MODEL
    try:
        plain = logits(model, None)
        model.add("other", LoRA(rank=2), seed=0)
        disturb(model, "other")
        expected = logits(model, "other")
        model.add(name, LoRA(rank=2), seed=0)
        disturb(model, name)
        assert torch.equal(logits(model, name), expected)
        assert list(model.adapters) == ["other", name]
        state = copy.deepcopy(model.state_dict())
        assert sum(key.startswith(f"adapters.{name}.") for key in state) == len(list(model.parameters_of(name)))
        with torch.no_grad():
            for parameter in model.parameters_of(name):
                parameter.zero_()
        model.load_state_dict(state)
        torch.testing.assert_close(logits(model, [name, None, "other", name])[0], expected[0])
        model.use(name)
        assert torch.equal(model(**batch()).logits.detach(), expected)
        model.save(name, folder / "a")
        model.remove(name)
        assert torch.equal(logits(model, None), plain)
        model.load(name, folder / "a")
        assert torch.equal(logits(model, name), expected)
    finally:
        model.close()
    assert untouched(model)


def untouched(model: AdaptedModel) -> bool:
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in model.base.modules())
    return not hooks and not model.adapters and not model.base.config._attn_implementation.startswith("graftune")


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_modules_have_already_works(name: str, tmp_path: Path) -> None:
    works(name, tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=12).filter(lambda name: "." not in name and name != "other"))
def test_any_name_without_dots_works(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    works(name, tmp_path_factory.mktemp("names"))


@pytest.mark.parametrize("name", ["", "a.b", ".", None, 3, ("a",), b"a"])
def test_a_name_that_cannot_be_is_refused_before_anything_happens(name: Any) -> None:
    adapter = built(MODEL, LoRA())
    for act in (lambda: MODEL.add(name, PrefixTuning(length=3, hidden=4)), lambda: MODEL.attach(name, adapter)):
        with pytest.raises(GraftuneError, match=r"this adapter name cannot be used(.|\n)*received"):
            act()
        assert untouched(MODEL)


def built(model: AdaptedModel, method: Method) -> Adapter:
    build = method.build(Context(model.base, model.anatomy))
    return Adapter(method, build.grafts, build.generators, ())


def test_a_name_in_use_is_refused_and_nothing_attached_twice() -> None:
    model = AdaptedModel(base("gpt2"))
    mine = model.add("a", LoRA())
    hooks = sum(len(m._forward_hooks) for m in model.base.modules())
    with pytest.raises(GraftuneError, match="cannot be used"):
        model.attach("a", built(model, LoRA()))
    assert model.adapter("a") is mine
    assert sum(len(m._forward_hooks) for m in model.base.modules()) == hooks


# Names inside the base -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["values", "keys", "items", "pop", "update", "copy", "get"])
def test_parameters_and_modules_of_the_base_may_have_such_names(name: str, tmp_path: Path) -> None:
    class Named(nn.Linear):
        def __init__(self, plain: nn.Linear) -> None:
            super().__init__(plain.in_features, plain.out_features)
            self.register_parameter(name, nn.Parameter(torch.zeros(plain.out_features)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + getattr(self, name)

    torch.manual_seed(0)
    plain = base("bert")
    dense = plain.bert.encoder.layer[0].intermediate
    dense.dense = Named(dense.dense)
    model = AdaptedModel(plain)
    before = logits(model, None)
    model.add("a", FullFineTuning(), seed=0)
    disturb(model, "a")
    live = logits(model, "a")
    model.save("a", tmp_path / "a")
    model.load("b", tmp_path / "a")
    assert torch.equal(logits(model, "b"), live)
    with torch.no_grad():
        torch.testing.assert_close(model.merge("a")(**batch()).logits, live, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(model, None), before)


# Attaching that fails ------------------------------------------------------------------------------------------


def broken(adapter: Adapter) -> Adapter:
    """An adapter whose last part lies at a module that the base does not have."""
    adapter.sites["nowhere"] = LinearSite("no.such.module", 4, 4)
    adapter.parts["nowhere"] = LowRank(4, 4, 2, 1.0)
    return adapter


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("prefix-shifted",)])
def test_attaching_that_fails_leaves_nothing_behind(family: str, method: str) -> None:
    model = AdaptedModel(base(family))
    before = dict(model.base.named_parameters())
    plain = logits(model, None)
    with pytest.raises(KeyError):
        model.attach("a", broken(built(model, METHODS[method])))
    assert untouched(model)
    assert all(model.base.get_parameter(name) is parameter for name, parameter in before.items())
    assert torch.equal(logits(model, None), plain)
    model.add("a", METHODS[method], seed=0)
    model.close()
    assert untouched(model)


@pytest.mark.parametrize("method", [PrefixTuning(length=3, hidden=4), BottleneckAdapter(), BitFit()], ids=str)
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_hook_that_cannot_be_registered_takes_the_others_with_it(
    method: Method, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AdaptedModel(base("gpt2"))
    count = 0

    def failing_after(real: Callable[..., Any]) -> Callable[..., Any]:
        def register(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == failing:
                raise RuntimeError("no more")
            return real(*args, **options)

        return register

    with monkeypatch.context() as patch:
        if isinstance(method, PrefixTuning):
            patch.setattr(keeper.Prefixes, "add", failing_after(keeper.Prefixes.add))
        else:
            patch.setattr(nn.Module, "register_forward_hook", failing_after(nn.Module.register_forward_hook))
        with pytest.raises(RuntimeError, match="no more"):
            model.attach("a", built(model, method))
    assert untouched(model)
    assert "a" not in model._attached


def test_attention_that_cannot_take_rows_is_left_as_it_is() -> None:
    model = AdaptedModel(base("gpt2"))
    model.base.config._attn_implementation_internal = "flex_attention"
    adapter = built(model, PrefixTuning(length=3, hidden=4))
    assert any(isinstance(part, KeyValueRows) for part in adapter.parts.values())
    with pytest.raises(GraftuneError, match="cannot take key/value rows"):
        model.attach("a", adapter)
    assert model.base.config._attn_implementation == "flex_attention"
    assert not model._prefixes.parts
    model.base.config._attn_implementation_internal = "sdpa"
    model.attach("a", adapter)
    assert not any(isinstance(part, ParameterCopy) for part in adapter.parts.values())
