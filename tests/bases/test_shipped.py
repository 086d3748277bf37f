"""The base that ships with the package."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from graftune import bases
from graftune.errors import GraftuneError

TEXT = (
    "The old man closed the door behind him and walked slowly down to the river. It had rained all night, "
    "and the water was high. He stood there for a long time, and thought of his daughter."
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(bases.path("tiny-decoder"))


def test_an_unknown_base_is_named() -> None:
    with pytest.raises(GraftuneError, match="did you mean 'tiny-decoder'"):
        bases.path("tiny-decodr")


def test_size_and_card() -> None:
    folder = bases.path("tiny-decoder")
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 16e6
    card = json.loads((folder / "pretraining.json").read_text())
    assert 5e6 <= card["parameters"] <= 8e6
    assert set(card["heldout_bits_per_byte"]) > {"all"}


def test_it_is_pretrained(tokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(bases.path("tiny-decoder"), dtype=torch.float32)

    def loss(text: str) -> float:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    words = TEXT.split()
    random.Random(0).shuffle(words)
    assert loss(TEXT) < loss(" ".join(words)) - 0.8


@given(st.text())
def test_every_text_survives_the_tokenizer(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
