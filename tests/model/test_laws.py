"""The laws that hold for every method on every family (docs/design.md): generated, on tiny random models."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import families
from all_families import FAMILIES, Inputs, output_of, shared
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.parts import Bias
from methods_under_test import MERGEABLE, METHODS, NO_OP, disturb
from support import MIXED, fitted, observed, shares

CELLS = [pytest.param(f, m, id=f"{f}-{m}") for f in FAMILIES for m in METHODS]
#: Family -> the parameters that no input moves: for masked images; a fixed table of sines; values of zeros.
IDLE = {"dinov2": ("mask_token",), "marian": ("embed_positions",), "detr": ("decoder/layers/0/self_attn/v_proj",)}
#: A key bias shifts all scores of a query alike, which softmax cancels.
CANCELLED = ("key/=.copies.bias", "k_proj/=.copies.bias", "k_lin/=.copies.bias")


def of(model: AdaptedModel, inputs: Inputs, adapters: object) -> Tensor:
    with torch.no_grad():
        return output_of(model, inputs, adapters=adapters)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def rows_are_as_if_alone(
    family: str, model: AdaptedModel, adapters: list[str | None], lengths: tuple[int, ...]
) -> None:
    kind = FAMILIES[family]
    for left in (False, True) if kind.kind != "image" else (False,):
        inputs = kind.inputs(left=left, lengths=lengths)
        together = of(model, inputs, adapters)
        for row, name in enumerate(adapters):
            close(kind.of_row(together, inputs, row), of(model, kind.alone(inputs, row), name)[0])


@cache
def plain(family: str) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
    """What a base gives that was never wrapped, its tensors and its config.

    It is frozen as a wrapped one is: some processors convolve by another kernel where weights take a gradient.
    """
    base = FAMILIES[family].base().requires_grad_(False)
    with torch.no_grad():
        return output_of(base, FAMILIES[family].inputs()), base.state_dict(), config_of(base)


def config_of(base: PreTrainedModel) -> dict[str, Any]:
    return {**base.config.to_dict(), "attention": base.config._attn_implementation}


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_rows_are_as_if_alone_and_nothing_stays_behind(family: str, method: str) -> None:
    expected, tensors, config = plain(family)
    inputs = FAMILIES[family].inputs()
    with fitted(family, method) as model:
        base = model.base
        rows_are_as_if_alone(family, model, list(MIXED) if shares(family, method) else ["a"] * 4, (9, 5, 7, 6))
        assert not torch.allclose(of(model, inputs, "a"), expected, atol=1e-4), "the adapter does nothing"
        close(of(model, inputs, None), expected)
    assert torch.equal(output_of(base, inputs), expected)
    assert config_of(base) == config
    after = base.state_dict()
    assert list(after) == list(tensors)
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_does_not_fit_says_why(family: str) -> None:
    for method in METHODS:
        seen = observed(family, method)
        for error in (seen.refused, seen.unshared):
            assert not error or ("\n  received: " in error and "\n  expected: " in error), method


@pytest.mark.parametrize(("family", "method"), [c for c in CELLS if c.values[1] in NO_OP])
def test_nothing_changes_at_the_start(family: str, method: str) -> None:
    with fitted(family, method) as model:
        model.add("new", METHODS[method], seed=0)
        close(of(model, FAMILIES[family].inputs(), "new"), plain(family)[0])


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_saved_folded_and_merged_are_the_same(family: str, method: str, tmp_path) -> None:
    inputs = FAMILIES[family].inputs()
    with fitted(family, method) as model:
        adapter, count = model.adapter("a"), model.count("a")
        live = of(model, inputs, "a")
        if method in MERGEABLE or (method == "bitfit" and not any(isinstance(p, Bias) for p in adapter.parts.values())):
            clone = model.merge("a")
            assert type(clone) is type(model.base)
            with torch.no_grad():
                close(output_of(clone, inputs), live)
        else:
            with pytest.raises(GraftuneError, match="cannot be merged exactly"):
                model.merge("a")
        model.save("a", tmp_path / "a")
        adapter.fold()  # exported rows are the live ones
        assert torch.equal(of(model, inputs, "a"), live)
        model.close()
        model.load("c", tmp_path / "a")
        assert torch.equal(of(model, inputs, "c"), live)
        assert model.count("c").stored == model.count("c").trained == count.stored
        model.load("d", tmp_path / "a", trainable=True)
        assert torch.equal(of(model, inputs, "d"), live)
        assert model.count("d") == count


def gradients(family: str, method: str, *, checkpointing: bool) -> dict[str, Tensor | None]:
    """The gradients of adapter "a"; a step along them must change nothing else."""
    kind = FAMILIES[family]
    with fitted(family, method) as model:
        if checkpointing:
            model.base.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        inputs = kind.inputs()
        if kind.kind == "text" and "labels" in model.signature.parameters:
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
            model(**inputs, adapters="a", labels=labels).loss.backward()
        else:
            output_of(model, inputs, adapters="a").pow(2).mean().backward()
        other = [p.detach().clone() for p in model.parameters_of("b")]
        torch.optim.SGD(model.parameters_of("a"), lr=0.1).step()
        assert all(torch.equal(a, b) for a, b in zip(other, model.parameters_of("b"), strict=True))
        assert all(p.grad is None for p in [*model.parameters_of("b"), *model.base.parameters()])
        now = model.base.state_dict()
        assert all(torch.equal(now[name], tensor) for name, tensor in plain(family)[1].items())
        return {name: p.grad for name, p in model.adapter("a").named_parameters()}


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_every_parameter_gets_a_gradient_that_checkpointing_keeps(family: str, method: str) -> None:
    able = FAMILIES[family].model.supports_gradient_checkpointing
    computed, recomputed = (gradients(family, method, checkpointing=on and able) for on in (False, True))
    for name, gradient in computed.items():
        if name.endswith(CANCELLED) or any(part in name for part in IDLE.get(family, ())):
            continue
        again = recomputed[name]
        assert gradient is not None and again is not None, name
        assert gradient.abs().max() > 0, name
        close(gradient, again)


def all_that_share(family: str) -> list[str]:
    return [method for method in METHODS if shares(family, method)]


def add_all(model: AdaptedModel, methods: list[str]) -> None:
    for name in methods:
        model.add(name, METHODS[name], seed=0)
        disturb(model, name)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_all_methods_share_one_batch(family: str) -> None:
    methods = all_that_share(family)
    adapters = [None, *methods]
    with shared(family) as model:
        add_all(model, methods)
        rows_are_as_if_alone(family, model, adapters, tuple(4 + i % 5 for i in range(len(adapters))))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_gradients_in_a_shared_batch_are_those_of_each_row_alone(family: str) -> None:
    kind, names = FAMILIES[family], all_that_share(family)
    model = AdaptedModel(kind.base())
    add_all(model, names)
    if model.base._can_set_experts_implementation():
        model.base.set_experts_implementation("eager")  # the other one has no double precision
    model.double()  # so that rounding cannot hide a gradient that leaks from one row to another
    inputs = kind.inputs(lengths=tuple(4 + i % 5 for i in range(len(names))))
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}

    def loss(output: Tensor) -> Tensor:
        return output.log_softmax(-1)[..., 1].sum()

    together = output_of(model, inputs, adapters=names)
    sum(loss(kind.of_row(together, inputs, row)) for row in range(len(names))).backward()
    mixed = {n: [None if p.grad is None else p.grad.clone() for p in model.parameters_of(n)] for n in names}
    for row, name in enumerate(names):
        model.zero_grad()
        loss(output_of(model, kind.alone(inputs, row), adapters=name)).backward()
        for mine, alone in zip(mixed[name], (p.grad for p in model.parameters_of(name)), strict=True):
            assert (mine is None) == (alone is None), name
            if mine is not None and alone is not None:
                torch.testing.assert_close(mine, alone, atol=1e-8, rtol=1e-5)  # norms may still compute in fp32


WRITERS = [name for name, family in FAMILIES.items() if family.model.can_generate()]
#: One method for each way to touch a base.
WAYS = ("prompt", "p-tuning-v2", "prefix-direct", "prefix-shifted", "lora", "ia3", "parallel", "bitfit", "freeze")


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"repetition_penalty": 1.3}], ids=["greedy", "beams", "penalty"]
)
@pytest.mark.parametrize("family", WRITERS)
def test_generation_in_a_shared_batch_is_as_if_alone(family: str, options: dict[str, object]) -> None:
    kind = FAMILIES[family]
    methods = [m for m in (METHODS if family in families.DECODERS else WAYS) if shares(family, m)]
    adapters = [None, *methods]
    # Encoders see padding behind as well as in front.
    inputs = kind.inputs(left=kind.kind == "text", lengths=tuple(4 + i % 5 for i in range(len(adapters))))
    inputs.pop("decoder_input_ids", None)
    width = inputs["input_ids"].shape[1] if kind.kind == "text" else 0
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": families.PAD, **options}
    with shared(family) as model:
        add_all(model, methods)
        together = model.generate(**inputs, adapters=adapters, **options)
        assert torch.equal(together[:, :width], inputs["input_ids"][:, :width])
        for row, adapter in enumerate(adapters):
            ids = kind.alone(inputs, row)["input_ids"]
            alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), adapters=adapter, **options)
            alone = alone[0, ids.shape[1] if width else 0 :].tolist()
            mine = together[row, width:].tolist()
            assert mine[: len(alone)] == alone, adapter
            assert set(mine[len(alone) :]) <= {families.PAD}


def test_a_model_is_freed_when_nobody_holds_it() -> None:
    """Without a garbage collection: its memory is wanted at once."""
    model = AdaptedModel(families.base("llama"))
    model.add("a", METHODS["prompt"], seed=0)
    of(model, families.batch(), "a")
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
