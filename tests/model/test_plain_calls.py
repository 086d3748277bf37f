"""The base that a model was made of, called by itself, is the plain base whatever the model was called with before."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import families
from all_families import FAMILIES, output_of
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from methods_under_test import METHODS, disturb


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "bart", "vit"])
@pytest.mark.parametrize("method", ["lora", "p-tuning-v2", "full", "houlsby"])
def test_a_direct_call_of_the_base_is_plain(family, method):
    kind = FAMILIES[family]
    base, inputs = kind.base(), kind.inputs()
    with torch.no_grad():
        plain = output_of(base, inputs)
        model = AdaptedModel(base)
        model.add("a", METHODS[method], seed=1)
        disturb(model, "a")
        adapted = output_of(model, inputs, adapters="a")
        assert torch.equal(output_of(base, inputs), plain) and not torch.equal(adapted, plain)
        assert torch.equal(output_of(model, inputs, adapters="a"), adapted)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_direct_generation_trunk_and_encoder_are_plain(family):
    base = FAMILIES[family].base()
    ids = torch.tensor([[5, 6, 7, 8]])
    write = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    parts = [base.base_model if family == "llama" else base.get_encoder()]
    with torch.no_grad():
        before = base.generate(ids, **write), [part(input_ids=ids)[0] for part in parts]
        model = AdaptedModel(base)
        model.add("a", METHODS["lora"], seed=1)
        disturb(model, "a")
        adapted = model.generate(ids, adapters="a", **write)
        assert torch.equal(base.generate(ids, **write), before[0]) and not torch.equal(adapted, before[0])
        assert all(torch.equal(part(input_ids=ids)[0], was) for part, was in zip(parts, before[1], strict=True))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_parts_of_the_base_called_by_themselves_are_plain(family):
    base = families.base(family)
    layers = base.model.layers if family == "llama" else base.bert.encoder.layer
    linear = layers[0].self_attn.q_proj if family == "llama" else layers[0].attention.self.query
    states = torch.randn(1, 3, linear.in_features)
    with torch.no_grad():
        before = linear(states)
        model = AdaptedModel(base)
        model.add("a", METHODS["lora"], seed=1)
        disturb(model, "a")
        model(input_ids=torch.tensor([[5, 6, 7]]), adapters="a")
        assert torch.equal(linear(states), before)


def test_a_copy_is_a_model_of_its_own():
    model = AdaptedModel(families.base("llama"))
    for name, method in (("a", "lora"), ("b", "prefix"), ("c", "full")):
        model.add(name, METHODS[method], seed=1)
        disturb(model, name)
    ids = torch.tensor([[5, 6, 7, 8]])
    model.use("b")
    with torch.no_grad():
        before = {name: model(input_ids=ids, adapters=name).logits for name in ("a", "b", "c", None)}
        made = copy.deepcopy(model)
        assert torch.equal(made(input_ids=ids).logits, before["b"])
        for name, logits in before.items():
            assert torch.equal(made(input_ids=ids, adapters=name).logits, logits)
        for parameter in made.parameters():
            parameter.zero_()
        made.remove("a")
        for name, logits in before.items():
            assert torch.equal(model(input_ids=ids, adapters=name).logits, logits)
    assert not {id(p) for p in made.parameters()} & {id(p) for p in model.parameters()}
    with pytest.raises(GraftuneError, match="cannot be pickled"):
        pickle.dumps(model)


def test_layers_recomputed_after_a_direct_call_are_adapted_as_they_were():
    def gradient(between):
        base = families.base("llama")
        base.gradient_checkpointing_enable({"use_reentrant": False})
        model = AdaptedModel(base)
        model.add("a", METHODS["lora"], seed=1)
        disturb(model, "a")
        model.train()
        ids = torch.tensor([[5, 6, 7, 8]])
        loss = model(input_ids=ids, labels=ids, adapters="a").loss
        if between:
            with torch.no_grad():
                base(input_ids=ids)
        loss.backward()
        return [parameter.grad for parameter in model.parameters_of("a")]

    for own, wanted in zip(gradient(True), gradient(False), strict=True):
        assert torch.equal(own, wanted)


def test_a_call_that_fails_leaves_the_routing_as_it_was():
    base = families.base("llama")
    model = AdaptedModel(base)
    model.add("a", METHODS["lora"], seed=1)
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, adapters="a")
    with pytest.raises(Exception, match="index"):
        base(input_ids=ids + 10**6)
    assert model._routing.names == ("a",)


def test_without_adapters_the_base_has_no_hooks():
    base = FAMILIES["t5"].base()
    model = AdaptedModel(base)
    model.add("a", METHODS["lora"], seed=1)
    model.add("b", METHODS["lora"], seed=1)
    model.remove("a")
    assert base._forward_pre_hooks
    model.close()
    for module in base.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks
