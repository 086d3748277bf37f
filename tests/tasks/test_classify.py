"""Classification by a head."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BartConfig, BartForSequenceClassification

from graftune.datasets import Row
from graftune.errors import GraftuneError
from graftune.tasks import Classify, from_state
from graftune.tasks.features import Reading
from graftune.templates import Template

from .conftest import Plain, byte_level, check_probabilities

ROWS = [Row("he is good", "good", 1), Row("no", "bad", 2), Row("quite good", "good", 4)]
TEMPLATE = Template("{input} It is")
TOKENIZER = byte_level(("[CLS]", "[SEP]"))


def prepared(**options) -> Classify:
    task = Classify(**options)
    task.prepare(ROWS)
    return task


@given(st.lists(st.sampled_from(["10", "2", "-1", "b", "a"]), min_size=2).filter(lambda x: len(set(x)) > 1))
def test_labels_do_not_depend_on_the_order_of_rows(labels):
    task = Classify()
    task.prepare([Row("x", label, 1) for label in labels])
    assert list(task.labels) == [label for label in ["-1", "2", "10", "a", "b"] if label in labels]
    assert json.loads(json.dumps(task.state())) == task.state()
    assert from_state(task.state()) == task


def test_model_arguments_build_the_head(bert_classifier):
    task = prepared()
    assert task.auto_class(None) == "AutoModelForSequenceClassification"
    base = bert_classifier(**task.model_arguments(TOKENIZER))
    assert base.classifier.out_features == 2
    assert base.config.label2id == {"bad": 0, "good": 1}
    assert base.config.pad_token_id == TOKENIZER.pad_token_id
    assert "pad_token_id" not in task.model_arguments()


def test_head_names(bert_classifier, llama_classifier, llama):
    assert Classify().head_names(bert_classifier()) == ("classifier",)
    assert Classify().head_names(llama_classifier()) == ("score",)
    config = BartConfig(
        vocab_size=20,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
    )
    assert Classify().head_names(BartForSequenceClassification(config)) == ("classification_head",)
    for base in (llama, llama.model):
        with pytest.raises(GraftuneError, match="no classification head"):
            Classify().head_names(base)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("kind", ["bert_classifier", "llama_classifier"])
def test_head_evaluation_equals_one_row_at_a_time(request, kind, batch_size):
    task, done = prepared(), []
    base = request.getfixturevalue(kind)(**task.model_arguments(TOKENIZER))
    model = Plain(base)
    result = task.evaluate(model, TOKENIZER, ROWS, None, TEMPLATE, batch_size=batch_size, progress=done.append)
    check_probabilities(
        result, task, ROWS, lambda row: base(torch.tensor([TOKENIZER(f"{row.input} It is").input_ids])).logits[0]
    )
    assert sum(done) == 3


@given(st.integers(0, 2**31))
def test_head_loss_is_the_float64_mean_over_rows(seed):
    logits = 5 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor([0, 1, 1, 0])
    expected = -logits.double().log_softmax(-1)[range(4), labels].mean()
    loss = prepared().loss(SimpleNamespace(logits=logits), {"labels": labels})
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


def test_collate_shapes():
    task = prepared()
    features = [task.encode(row, Reading(TOKENIZER, TEMPLATE, 1000)) for row in ROWS]
    batch = task.collate(features, pad_id=0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, max(len(f.ids) for f in features))
    assert batch["labels"].tolist() == [1, 0, 1]


def test_inputs_are_cut_and_counted(bert_classifier):
    task = prepared()
    base = bert_classifier(**task.model_arguments(TOKENIZER))
    result = task.evaluate(Plain(base), TOKENIZER, ROWS, None, TEMPLATE, max_length=12)
    assert result.notes["truncated"].startswith("2 of 3")
    with pytest.raises(GraftuneError, match="line 1: the sequence is too long"):
        task.evaluate(Plain(base), TOKENIZER, ROWS, None, TEMPLATE, max_length=8)


def test_errors(llama_classifier):
    with pytest.raises(GraftuneError, match="two labels or more"):
        Classify().prepare(ROWS[:1])
    with pytest.raises(GraftuneError, match="labels are not known yet"):
        Classify().model_arguments()
    with pytest.raises(GraftuneError, match=r"line 9: unknown label 'god' \(known: 'bad', 'good'\)"):
        prepared().check([Row("x", "god", 9)])
    with pytest.raises(GraftuneError, match="solved examples as text are not for the task 'classify'"):
        prepared().demonstration(ROWS[0])
    model = Plain(llama_classifier(num_labels=2))
    with pytest.raises(GraftuneError, match="no padding token"):
        prepared().evaluate(model, TOKENIZER, ROWS, None, TEMPLATE)
    with pytest.raises(GraftuneError, match="no rows"):
        prepared().evaluate(model, TOKENIZER, [], None, TEMPLATE)
