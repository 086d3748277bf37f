"""Virtual tokens anywhere in the input, against the base run on embeddings put together by hand."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import FAMILIES, PAD, VOCABULARY, base
from graftune.errors import GraftuneError
from graftune.methods import PromptTuning, PTuning
from graftune.model.adapted import AdaptedModel
from graftune.model.layout import Place, arrange
from methods_under_test import disturb


def by_hand(model: AdaptedModel, name: str, ids: list[int]) -> torch.Tensor:
    """Logits (n, V) of the base on the embeddings of ``ids``, the adapter's rows where ids are virtual."""
    adapter = model.adapter(name)
    adapter.refresh()
    rows = next(iter(adapter.parts.values())).table()
    table = model.base.get_input_embeddings().weight
    embedded = torch.stack([rows[i - VOCABULARY] if i >= VOCABULARY else table[i] for i in ids])
    with torch.no_grad():
        return model.base(inputs_embeds=embedded[None]).logits[0]


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_tokens_in_the_middle_of_the_text(family: str, left: bool) -> None:
    model = AdaptedModel(base(family))
    model.add("a", PTuning(pattern="x {P:2} {input} {P:3}"), seed=0)
    model.add("b", PTuning(pattern="{P:4} {input} {P:1}", encoder="mlp"), seed=1)
    disturb(model, "a")
    disturb(model, "b")
    v = VOCABULARY
    texts = [[5, v, v + 1, 6, 7, v + 2, v + 3, v + 4, 9], [v, v + 1, v + 2, v + 3, 8, v + 4], [10, 11, 12, 13]]
    names = ["a", "b", None]
    width = max(map(len, texts))
    padded = [[PAD] * (width - len(t)) + t if left else t + [PAD] * (width - len(t)) for t in texts]
    real = [[0] * (width - len(t)) + [1] * len(t) if left else [1] * len(t) + [0] * (width - len(t)) for t in texts]
    ids, mask = torch.tensor(padded), torch.tensor(real)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, adapters=names).logits
    assert logits.shape[:2] == ids.shape
    for row, (text, name) in enumerate(zip(texts, names, strict=True)):
        expected = by_hand(model, name, text) if name else model.base(input_ids=torch.tensor([text])).logits[0]
        torch.testing.assert_close(logits[row][mask[row].bool()], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_stands_in_front(family: str) -> None:
    model = AdaptedModel(base(family))
    model.add("a", PromptTuning(length=4))
    disturb(model, "a")
    text = [5, 6, 7, 8, 9]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([text]), adapters="a").logits[0]
    expected = by_hand(model, "a", [VOCABULARY + i for i in range(4)] + text)[4:]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_template_that_was_not_used_is_an_error() -> None:
    model = AdaptedModel(base("llama"))
    model.add("a", PTuning(pattern="{P:2}{input}{P:2}"))
    with pytest.raises(GraftuneError, match=r"row 1 holds no virtual tokens(.|\n)*what to do"):
        model(input_ids=torch.tensor([[VOCABULARY, 5, 6], [5, 6, 7]]), adapters="a")


def test_more_virtual_tokens_than_the_adapter_has_is_an_error() -> None:
    model = AdaptedModel(base("llama"))
    model.add("a", PromptTuning(length=2))
    with pytest.raises(GraftuneError, match="virtual tokens that its adapter does not have"):
        model(input_ids=torch.tensor([[VOCABULARY + 2, 5]]), adapters="a")


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    data=st.data(),
    place=st.sampled_from(get_args(Place)),
    left=st.booleans(),
)
def test_arranging_moves_tokens_and_loses_none(
    lengths: list[int], data: st.DataObject, place: Place, left: bool
) -> None:
    counts = [data.draw(st.integers(0, 5)) for _ in lengths]
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros_like(ids)
    for row, n in enumerate(lengths):
        span = slice(width - n, width) if left else slice(0, n)
        ids[row, span] = torch.arange(10, 10 + n)
        mask[row, span] = 1
    result = arrange({"input_ids": ids, "attention_mask": mask}, counts, 50, place=place)
    wide = result.inputs["attention_mask"].bool()
    for row, n in enumerate(lengths):
        real = wide[row].nonzero().flatten()
        assert len(real) == n + counts[row]
        assert (real.diff() == 1).all(), "padding between virtual tokens and text"
        virtual = result.virtual[row][real]
        start = 1 if place == "behind the first" else 0
        assert place != "front, padding behind" or real[0] == 0
        assert virtual[start : start + counts[row]].tolist() == list(range(counts[row]))
        assert result.inputs["input_ids"][row][real][virtual < 0].tolist() == list(range(10, 10 + n))
        assert result.inputs["input_ids"][row].max() < 50
    assert torch.equal(result.inputs["input_ids"].gather(1, result.kept)[mask.bool()], ids[mask.bool()])
