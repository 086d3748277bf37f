"""The laws that hold for every method on every family (docs/design.md, section 6)."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from families import DECODERS, FAMILIES, WITHOUT_BIASES, base, batch
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from methods_under_test import MERGEABLE, METHODS, NO_OP, disturb, in_training

CELLS = [pytest.param(f, m, id=f"{f}-{m}") for f in FAMILIES for m in METHODS]
EXACT = 1e-5


def logits_of(model: AdaptedModel, inputs: dict[str, torch.Tensor], adapters: object) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, adapters=adapters).logits


def solo(model: AdaptedModel, inputs: dict[str, torch.Tensor], row: int, adapter: str | None) -> torch.Tensor:
    """The row's logits (n, V) when it runs alone and without padding."""
    ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
    return logits_of(model, {"input_ids": ids}, adapter)[0]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=EXACT, rtol=1e-5)


@pytest.mark.parametrize(("family", "method"), [pytest.param(f, m, id=f"{f}-{m}") for f in FAMILIES for m in NO_OP])
def test_nothing_changes_at_the_start(family: str, method: str) -> None:
    plain = base(family)
    inputs = batch()
    expected = plain(**inputs).logits
    model = AdaptedModel(plain)
    model.add("a", METHODS[method], seed=0)
    close(logits_of(model, inputs, "a"), expected)


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_adding_and_removing_restores_the_base_bit_for_bit(family: str, method: str) -> None:
    plain = base(family)
    inputs = batch()
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    config = plain.config.to_dict()
    expected = plain(**inputs).logits
    model = AdaptedModel(plain)
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a")
    changed = logits_of(model, inputs, "a")
    assert not torch.allclose(changed, expected, atol=1e-4), "the adapter does nothing"
    close(logits_of(model, inputs, None), expected)
    model.remove("a")
    assert torch.equal(plain(**inputs).logits, expected)
    assert plain.config.to_dict() == config
    assert plain.config._attn_implementation == "sdpa"
    after = plain.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_a_row_in_a_batch_is_as_if_alone(family: str, method: str, left: bool) -> None:
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method], seed=0)
    model.add("b", METHODS[method], seed=3)
    disturb(model, "a")
    disturb(model, "b", seed=8)
    inputs = batch(left=left)
    adapters = ["a", None, "b", "a"]
    together = logits_of(model, inputs, adapters)
    for row, adapter in enumerate(adapters):
        own = together[row][inputs["attention_mask"][row].bool()]
        close(own, solo(model, inputs, row, adapter))


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_all_methods_share_one_batch(family: str, left: bool) -> None:
    model = AdaptedModel(base(family))
    for name, method in METHODS.items():
        model.add(name, method, seed=0)
        disturb(model, name)
    adapters = [None, *METHODS]
    inputs = batch(tuple(4 + i % 5 for i in range(len(adapters))), left=left)
    together = logits_of(model, inputs, adapters)
    for row, adapter in enumerate(adapters):
        close(together[row][inputs["attention_mask"][row].bool()], solo(model, inputs, row, adapter))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_gradients_in_a_shared_batch_are_those_of_each_row_alone(family: str) -> None:
    model = AdaptedModel(base(family))
    for name, method in METHODS.items():
        model.add(name, method, seed=0)
        disturb(model, name)
    model.double()  # so that rounding cannot hide a gradient that leaks from one row to another
    names = list(METHODS)
    inputs = batch(tuple(4 + i % 5 for i in range(len(names))))

    def loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (logits.log_softmax(-1)[..., 5] * mask).sum()

    loss(model(**inputs, adapters=names).logits, inputs["attention_mask"]).backward()
    shared = {n: [None if p.grad is None else p.grad.clone() for p in model.parameters_of(n)] for n in names}
    for row, name in enumerate(names):
        model.zero_grad()
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
        loss(model(input_ids=ids, adapters=name).logits, torch.ones_like(ids)).backward()
        for mine, alone in zip(shared[name], (p.grad for p in model.parameters_of(name)), strict=True):
            assert (mine is None) == (alone is None), name
            if mine is not None and alone is not None:
                torch.testing.assert_close(mine, alone, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"repetition_penalty": 1.3}], ids=["greedy", "beams", "penalty"]
)
@pytest.mark.parametrize("family", DECODERS)
def test_generation_in_a_shared_batch_is_as_if_alone(family: str, options: dict[str, object]) -> None:
    model = AdaptedModel(base(family))
    for name, method in METHODS.items():
        model.add(name, method, seed=0)
        disturb(model, name)
    adapters = [None, *METHODS]
    inputs = batch(tuple(4 + i % 5 for i in range(len(adapters))), left=True)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, **options}
    together = model.generate(**inputs, adapters=adapters, **options)
    width = inputs["input_ids"].shape[1]
    assert torch.equal(together[:, :width], inputs["input_ids"])
    for row, adapter in enumerate(adapters):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
        alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), adapters=adapter, **options)[
            0, ids.shape[1] :
        ]
        mine = together[row, width:][: len(alone)]
        assert mine.tolist() == alone.tolist(), adapter


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_saved_and_loaded_is_exactly_the_same(family: str, method: str, tmp_path) -> None:
    inputs = batch()
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a")
    live = logits_of(model, inputs, "a")
    model.save("a", tmp_path / "a")
    model.adapter("a").fold()  # exported rows are the live ones
    assert torch.equal(logits_of(model, inputs, "a"), live)
    other = AdaptedModel(base(family))
    other.load("b", tmp_path / "a")
    assert torch.equal(logits_of(other, inputs, "b"), live)
    assert other.count("b").stored == other.count("b").trained == model.count("a").stored
    again = AdaptedModel(base(family))
    again.load("c", tmp_path / "a", trainable=True)
    assert torch.equal(logits_of(again, inputs, "c"), live)


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_merged_equals_unmerged_or_says_why_not(family: str, method: str) -> None:
    inputs = batch()
    model = AdaptedModel(base(family))
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a", size=0.05)
    if method in MERGEABLE or (method == "bitfit" and family not in WITHOUT_BIASES):
        clone = model.merge("a")
        assert type(clone) is type(model.base)
        with torch.no_grad():
            close(clone(**inputs).logits, logits_of(model, inputs, "a"))
    else:
        with pytest.raises(GraftuneError, match="cannot be merged exactly"):
            model.merge("a")


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_every_parameter_gets_a_gradient_and_only_the_adapter_changes(family: str, method: str) -> None:
    plain = base(family)
    model = AdaptedModel(plain).train()
    model.add("a", METHODS[method], seed=0)
    model.add("other", METHODS["lora"])
    disturb(model, "a")
    frozen = copy.deepcopy(plain.state_dict())
    other = [p.detach().clone() for p in model.parameters_of("other")]
    inputs = batch()
    output = model(**inputs, adapters="a", labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100))
    output.loss.backward()
    for name, parameter in model.adapter("a").named_parameters():
        if "token_type" in name or "embeddings" in name or "wpe" in name or "pooler" in name:
            continue
        assert parameter.grad is not None, name
        softmax_cancels = name.endswith(("key/=.copies.bias",))  # a key bias shifts all scores alike
        assert softmax_cancels or parameter.grad.abs().max() > 0, name
    torch.optim.SGD(model.parameters_of("a"), lr=0.1).step()
    assert all(torch.equal(v, frozen[k]) for k, v in plain.state_dict().items())
    assert all(p.grad is None for p in plain.parameters())
    assert all(torch.equal(a, b) for a, b in zip(other, model.parameters_of("other"), strict=True))


@pytest.mark.parametrize(("family", "method"), CELLS)
def test_gradient_checkpointing_changes_no_gradient(family: str, method: str) -> None:
    gradients = []
    inputs = batch()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for checkpointing in (False, True):
        model = in_training(base(family), method, checkpointing=checkpointing)
        model(**inputs, adapters="a", labels=labels).loss.backward()
        gradients.append([p.grad for p in model.parameters_of("a")])
    for plain_gradient, recomputed in zip(*gradients, strict=True):
        assert (plain_gradient is None) == (recomputed is None)
        if plain_gradient is not None:
            close(plain_gradient, recomputed)


def test_a_model_is_freed_when_nobody_holds_it() -> None:
    """Without a garbage collection: its memory is wanted at once."""
    model = AdaptedModel(base("llama"))
    model.add("a", METHODS["prompt"], seed=0)
    logits_of(model, batch(), "a")
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
