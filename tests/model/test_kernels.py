"""The kernels compute what the base's own modules compute: outputs and gradients, in float64 where they allow it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, T5Config, T5ForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from families import COMMON, FAMILIES, base, batch
from graftune.errors import GraftuneError
from graftune.model import kernels
from graftune.model.adapted import AdaptedModel
from graftune.model.kernels import activation, attention, linear, norm
from methods_under_test import METHODS, disturb


def outcome(model, inputs, adapters="a"):
    """Logits at the real positions, and the gradients of a function of them."""
    model.zero_grad()
    logits = model(**inputs, adapters=adapters).logits[inputs["attention_mask"].bool()]
    logits.log_softmax(-1)[:, 5].sum().backward()
    return logits.detach(), [p.grad for p in model.parameters_of("a")]


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_trains_the_same_by_them(family: str, method: str, left: bool) -> None:
    model = AdaptedModel(base(family)).train()
    model.add("a", METHODS[method], seed=0)
    disturb(model, "a")
    inputs = batch(left=left)
    logits, gradients = outcome(model, inputs)
    with kernels.fast(model.base, "onednn") as used:
        assert {"linear", "attention"} <= set(used)
        mine, own = outcome(model, inputs)
    torch.testing.assert_close(mine, logits, atol=2e-5, rtol=1e-4)
    for a, b in zip(own, gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    again, _ = outcome(model, inputs)
    assert torch.equal(again, logits), "the base computes as before"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_is_as_it_was(family: str) -> None:
    plain = base(family)
    before, config = copy.deepcopy(plain.state_dict()), plain.config.to_dict()
    with pytest.raises(ValueError, match="stopped"), kernels.fast(plain, "onednn"):
        raise ValueError("stopped")
    assert plain.config.to_dict() == config and plain.config._attn_implementation == "sdpa"
    assert not any("forward" in module.__dict__ for module in plain.modules())
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 7), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 99))
def test_products_are_those_of_torch(rows, inputs, outputs, biased, trained, seed):
    torch.manual_seed(seed)
    x, weight = torch.randn(2, rows, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if biased else None
    cotangent = torch.randn(2, rows, outputs)
    results = []
    for double in (True, False):
        own = [t.double() if double else t.clone() for t in (x, weight)]
        own[0].requires_grad_()
        own[1].requires_grad_(trained)
        b = None if bias is None else (bias.double() if double else bias.clone()).requires_grad_(trained)
        y = torch.nn.functional.linear(*own, b) if double else linear._Linear.apply(*own, b)
        y.backward(cotangent.to(y.dtype))
        results.append([y.detach(), own[0].grad, own[1].grad, None if b is None else b.grad])
    for reference, mine in zip(*results, strict=True):
        assert (reference is None) == (mine is None)
        if mine is not None:
            torch.testing.assert_close(mine.double(), reference, atol=1e-4, rtol=1e-4)


def test_a_product_of_nothing_is_nothing():
    assert linear.multiply(torch.ones(0, 3), torch.ones(2, 3)).shape == (0, 2)


def test_an_unknown_product_is_refused():
    with pytest.raises(GraftuneError, match="did you mean 'onednn'"):
        linear.chosen("onednm")


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 5)),
    st.sampled_from([None, "boolean", "additive", "per head"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_attention_is_that_of_torch(sizes, kind, causal, seed):
    batch_size, shared, group, targets, before = sizes
    heads, sources = shared * group, targets + before
    if causal and kind is None and before:  # without a mask, queries and keys start together
        before, sources = 0, targets
    torch.manual_seed(seed)
    shapes = [(batch_size, heads, targets), (batch_size, shared, sources), (batch_size, shared, sources)]
    q, k, v = (torch.randn(*shape, 4, dtype=torch.float64, requires_grad=True) for shape in shapes)
    mask = None
    if kind is not None:
        seen = torch.rand(batch_size, heads if kind == "per head" else 1, targets, sources) < 0.6
        seen[..., 0] = True
        mask = seen if kind != "additive" else torch.zeros(seen.shape, dtype=q.dtype).masked_fill(~seen, -1e30)
    module = torch.nn.Module()
    module.is_causal, module.num_key_value_groups = causal, group
    cotangent = torch.randn(batch_size, targets, heads, 4, dtype=torch.float64)
    results = []
    for function in (sdpa_attention_forward, attention.short):
        y, _ = function(module, q, k, v, mask, scaling=0.3)
        results.append([y, *torch.autograd.grad(y, (q, k, v), cotangent)])
    for reference, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-10, rtol=1e-8)


def test_what_plain_products_cannot_do_goes_the_old_way(monkeypatch):
    """Long sequences, dropout, and arguments that are not known."""
    seen = []
    real = attention.ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, "sdpa", lambda *a, **k: seen.append(k) or real(*a, **k))
    module = torch.nn.Module()
    q = torch.randn(1, 2, attention.LONGEST + 1, 4)
    attention.short(module, q, q, q, None)
    attention.short(module, q[:, :, :5], q[:, :, :5], q[:, :, :5], None, dropout=0.1)
    attention.short(module, q[:, :, :5], q[:, :, :5], q[:, :, :5], None, position_bias=torch.zeros(1, 2, 5, 5))
    assert len(seen) == 3
    attention.short(module, q[:, :, :5], q[:, :, :5], q[:, :, :5], None, position_bias=None)
    assert len(seen) == 3


def test_gelu_is_the_formula():
    module = torch.nn.Sequential(activation.NewGELUActivation())
    x = torch.linspace(-6, 6, 99, dtype=torch.float64)
    with activation.replaced(module) as found:
        assert found
        mine = module(x)
    formula = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    torch.testing.assert_close(mine, formula, atol=1e-12, rtol=1e-12)


@given(st.integers(1, 5), st.integers(1, 17), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_rms_norm_is_the_formula(rows, width, seed):
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, width, dtype=torch.float32, requires_grad=True), torch.randn(width)
    cotangent = torch.randn(rows, width)
    y = norm._RMSNorm.apply(x, weight, 1e-5)
    y.backward(cotangent)
    wide = x.detach().double().requires_grad_()
    formula = weight.double() * wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    formula.backward(cotangent.double())
    torch.testing.assert_close(y.double(), formula, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(x.grad.double(), wide.grad, atol=1e-4, rtol=1e-3)


def gemma() -> Gemma3ForCausalLM:
    """A norm that multiplies by 1 + weight, windows, and soft-capped logits."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Gemma3TextConfig(
        **COMMON, **sizes, num_key_value_heads=2, head_dim=8, sliding_window=4, final_logit_softcapping=2.0
    )
    model = Gemma3ForCausalLM(config).eval()
    for module in model.modules():
        if type(module).__name__ == "Gemma3RMSNorm":
            torch.nn.init.normal_(module.weight, 0, 0.3)
    return model


def test_a_norm_of_another_formula_is_left_alone():
    model = gemma()
    inputs = batch()
    real = inputs["attention_mask"].bool()  # a padded position may see no key at all; what it gives has no meaning
    expected = model(**inputs).logits[real]
    with norm.replaced(model) as found:
        assert not found
    with kernels.fast(model, "onednn"):
        torch.testing.assert_close(model(**inputs).logits[real], expected, atol=2e-5, rtol=1e-4)


def test_relative_positions_are_not_lost():
    torch.manual_seed(0)
    config = T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=1)
    model = T5ForConditionalGeneration(config).eval()
    inputs = {**batch(), "decoder_input_ids": torch.tensor([[1, 5, 7]] * 4)}
    expected = model(**inputs).logits
    with kernels.fast(model, "onednn"):
        torch.testing.assert_close(model(**inputs).logits, expected, atol=2e-5, rtol=1e-4)
