"""The bases that ship with the package."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from graftune import bases
from graftune.errors import GraftuneError

TEXT = (
    "The old man closed the door behind him and walked slowly down to the river. It had rained all night, "
    "and the water was high. He stood there for a long time, and thought of his daughter."
)


@pytest.fixture(scope="module", params=list(bases.SHIPPED))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name: str):
    return AutoTokenizer.from_pretrained(bases.path(name))


def test_an_unknown_base_is_named() -> None:
    with pytest.raises(GraftuneError, match="did you mean 'tiny-decoder'"):
        bases.path("tiny-decodr")


def test_size_and_card(name: str) -> None:
    folder = bases.path(name)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 16e6
    figures = json.loads((folder / "pretraining.json").read_text())
    assert 5e6 <= figures["parameters"] <= 8e6
    assert set(figures["heldout"]["base"]) == {*figures["text"], "all"}
    card = (folder / "README.md").read_text()
    assert f"{figures['parameters']:,}" in card
    assert all(source in card for source in figures["text"])


def test_the_decoder_knows_english() -> None:
    folder = bases.path("tiny-decoder")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def loss(text: str) -> float:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    words = TEXT.split()
    random.Random(0).shuffle(words)
    assert loss(TEXT) < loss(" ".join(words)) - 0.8


def test_the_encoder_guesses_hidden_words() -> None:
    folder = bases.path("tiny-encoder")
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    right = 0
    places = range(1, ids.shape[1] - 1)
    for place in places:
        hidden = ids.clone()
        hidden[0, place] = tokenizer.mask_token_id
        with torch.no_grad():
            right += int(model(input_ids=hidden).logits[0, place].argmax() == ids[0, place])
    assert right > 0.35 * len(places)  # the most frequent token alone is right in a tenth


def test_both_have_the_same_tokens() -> None:
    decoder, encoder = (AutoTokenizer.from_pretrained(bases.path(name)) for name in bases.SHIPPED)
    assert decoder.get_vocab() == encoder.get_vocab()
    assert decoder.mask_token_id == encoder.mask_token_id is not None
    assert encoder(TEXT).input_ids[1:-1] == decoder(TEXT).input_ids


@given(st.text())
def test_every_text_survives_the_tokenizer(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
