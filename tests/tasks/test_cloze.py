"""Cloze: label words at the hidden word of a masked language model, or next after the text of a causal one."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForMaskedLM, GPT2Config, T5Config

from families import bert_config
from graftune.datasets import Row
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import Cloze, from_state
from graftune.tasks.features import Reading
from graftune.tasks.label_words import label_words
from graftune.templates import Template

from .conftest import Plain, byte_level, check_probabilities

ROWS = [Row("he is good", "good", 1), Row("no", "bad", 2), Row("quite good", "good", 4)]
TEMPLATE = Template("{input} It is")
GAP = Template("{input} It is {mask}.")
TOKENIZER = byte_level(("[CLS]", "[SEP]"))
MASKED = byte_level(("[CLS]", "[SEP]"), mask_token="[MASK]")


def prepared(**options) -> Cloze:
    task = Cloze(**{"words": "first", **options})
    task.prepare(ROWS)
    return task


def masked(**options) -> Cloze:
    task = prepared(**options)
    task.bind(bert_config(), MASKED)
    return task


def test_state_of_label_words():
    task = prepared(verbalizer={"good": "great", "bad": "poor"})
    again = from_state(json.loads(json.dumps(task.state())))
    assert again == task


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("merges", [True, False])
def test_label_word_evaluation_equals_one_row_at_a_time(llama, gpt2, batch_size, merges):
    tokenizer = byte_level(("<s>", "</s>"), merges=merges)
    task = prepared()

    def scores(row):
        # with merges "Ġg" and "Ġb" are tokens; without, the space is one and the letter follows
        text, names = (f"{row.input} It is", ["Ġb", "Ġg"]) if merges else (f"{row.input} It is ", ["b", "g"])
        ids = torch.tensor([tokenizer(text).input_ids[:-1]])
        return base(ids).logits[0, -1, tokenizer.convert_tokens_to_ids(names)]

    for base in (llama, gpt2):
        result = task.evaluate(Plain(base), tokenizer, ROWS, None, TEMPLATE, batch_size=batch_size)
        check_probabilities(result, task, ROWS, scores)


def test_label_words_are_separated_from_the_text_as_the_tokenizer_does():
    words = {"g": "good", "b": "bad"}
    merged = label_words(byte_level(), words)
    assert (merged.lead, merged.ids) == ([], byte_level().convert_tokens_to_ids(["Ġg", "Ġb"]))
    single = byte_level(merges=False)
    found = label_words(single, words)
    assert (found.lead, found.ids) == (
        single.convert_tokens_to_ids(["Ġ"]),
        single.convert_tokens_to_ids(["g", "b"]),
    )


def test_demonstrations_are_solved_examples():
    task = prepared(verbalizer={"good": "great", "bad": "poor"})
    assert task.demonstrations(ROWS[:2]) == "he is good great\nno poor\n"


def test_a_verbalizer_may_write_labels_as_numbers():
    task = Cloze(verbalizer={1: "good", 0: "bad"})  # type: ignore[dict-item]
    task.prepare([Row("x", "1", 1)])
    assert task.labels == ("0", "1")


def bert() -> BertForMaskedLM:
    config = bert_config()
    config.vocab_size = len(MASKED)
    torch.manual_seed(0)
    return BertForMaskedLM(config).eval()


def test_the_base_decides_which_model_answers():
    task = Cloze()
    assert task.auto_class(bert_config()) == "AutoModelForMaskedLM"
    assert task.auto_class(GPT2Config()) == "AutoModelForCausalLM"
    assert task.auto_class(T5Config()) == "AutoModelForMaskedLM"  # which T5 has none of: loading says so
    assert task.head_names(None) == ()


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_masked_model_is_scored_at_the_hidden_word(batch_size):
    base, task = bert(), masked()
    names = MASKED.convert_tokens_to_ids(["Ġb", "Ġg"])

    def scores(row):
        ids = MASKED(f"{row.input} It is [MASK].").input_ids
        return base(torch.tensor([ids])).logits[0, ids.index(MASKED.mask_token_id), names]

    check_probabilities(
        task.evaluate(AdaptedModel(base), MASKED, ROWS, None, GAP, batch_size=batch_size), task, ROWS, scores
    )


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_loss_is_the_float64_mean_over_label_words(rows, seed):
    task = prepared()
    task.encode(ROWS[0], Reading(TOKENIZER, TEMPLATE, 1000))
    logits = torch.randn(rows, len(TOKENIZER), generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(rows) % 2
    expected = logits[:, TOKENIZER.convert_tokens_to_ids(["Ġb", "Ġg"])]
    batch = {"labels": labels}
    assert task.scores(logits, batch).equal(expected)
    reference = -expected.double().log_softmax(-1)[range(rows), labels].mean()
    assert task.loss(logits, batch).item() == pytest.approx(reference.item(), rel=1e-5)


def test_words_of_several_tokens_are_named_by_line_where_one_is_needed():
    task = masked(words="single", verbalizer={"good": "g", "bad": "bad"})
    wrong = task.problems(ROWS)
    assert list(wrong) == [2]
    assert "its word 'bad' is not one token ('Ġb' 'a' 'd')" in wrong[2]
    assert not masked(words="first", verbalizer={"good": "g", "bad": "bad"}).problems(ROWS)


def test_errors():
    with pytest.raises(GraftuneError, match="line 2: unknown label 'bad'"):
        prepared(verbalizer={"good": "great", "poor": "poor"}).check(ROWS)
    task = prepared(verbalizer={"good": "gain", "bad": "great"})
    with pytest.raises(GraftuneError, match="begin with the same token"):
        task.encode(ROWS[0], Reading(TOKENIZER, TEMPLATE, 1000))
    for tokenizer in (TOKENIZER, byte_level(merges=False)):
        with pytest.raises(GraftuneError, match="without a token"):
            prepared(verbalizer={"good": "", "bad": "b"}).encode(ROWS[0], Reading(tokenizer, TEMPLATE, 1000))
    with pytest.raises(GraftuneError, match="before any row was encoded"):
        prepared().scores(None, {})
    with pytest.raises(GraftuneError, match=r"the template has no \{mask\}"):
        masked().encode(ROWS[0], Reading(MASKED, TEMPLATE, 1000))
    ids = masked().encode(Row("a [MASK]", "good", 1), Reading(MASKED, GAP, 1000)).ids
    assert ids.count(MASKED.mask_token_id) == 1  # data never becomes a special token
    with pytest.raises(GraftuneError, match="bad value for 'words'"):
        Cloze(words="two")
