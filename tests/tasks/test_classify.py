"""Classification by a head."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BartConfig, BartForSequenceClassification, BertConfig

from graftune.datasets import Row
from graftune.errors import GraftuneError
from graftune.inference.evaluation import check, evaluate
from graftune.tasks import Classify, from_state, state_of
from graftune.tasks.features import PromptEncoder
from graftune.templates import Template

from .conftest import Plain, byte_level, check_probabilities

ROWS = [Row("he is good", "good", 1), Row("no", "bad", 2), Row("quite good", "good", 4)]
TEMPLATE = Template("{input} It is")
TOKENIZER = byte_level(("[CLS]", "[SEP]"))


def fitted(**options) -> Classify:
    return Classify(**options).fit(ROWS)


def bound(base=None):
    return fitted().bind(BertConfig(pad_token_id=0) if base is None else base.config, TOKENIZER)


@given(st.lists(st.sampled_from(["10", "2", "-1", "b", "a"]), min_size=2).filter(lambda x: len(set(x)) > 1))
def test_labels_do_not_depend_on_the_order_of_rows(labels):
    task = Classify().fit([Row("x", label, 1) for label in labels])
    assert list(task.labels) == [label for label in ["-1", "2", "10", "a", "b"] if label in labels]
    assert json.loads(json.dumps(state_of(task))) == state_of(task)
    assert from_state(state_of(task)) == task


def test_the_heads_arguments_build_it(bert_classifier):
    task = fitted()
    head = task.head(None)
    assert head.auto_class == "AutoModelForSequenceClassification"
    base = bert_classifier(**head.loading)
    assert base.classifier.out_features == 2
    assert base.config.label2id == {"bad": 0, "good": 1}
    assert head.pads


def test_head_names(bert_classifier, llama_classifier, llama):
    assert fitted().head(None).modules(bert_classifier()) == ("classifier",)
    assert fitted().head(None).modules(llama_classifier()) == ("score",)
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
    assert fitted().head(None).modules(BartForSequenceClassification(config)) == ("classification_head",)
    for base in (llama, llama.model):
        with pytest.raises(GraftuneError, match="no classification head"):
            fitted().head(None).modules(base)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("kind", ["bert_classifier", "llama_classifier"])
def test_head_evaluation_equals_one_row_at_a_time(request, kind, batch_size):
    task, done = fitted(), []
    base = request.getfixturevalue(kind)(**task.head(None).loading, pad_token_id=TOKENIZER.pad_token_id)
    model = Plain(base)
    result = evaluate(model, bound(base), ROWS, None, TEMPLATE, batch_size=batch_size, progress=done.append)
    check_probabilities(
        result, task, ROWS, lambda row: base(torch.tensor([TOKENIZER(f"{row.input} It is").input_ids])).logits[0]
    )
    assert sum(done) == 3


@given(st.integers(0, 2**31))
def test_head_loss_is_the_float64_mean_over_rows(seed):
    logits = 5 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor([0, 1, 1, 0])
    expected = -logits.double().log_softmax(-1)[range(4), labels].mean()
    losses = bound().losses(SimpleNamespace(logits=logits), {"labels": labels})
    assert losses.shape == bound().counts({"labels": labels}).shape == (4, 1)
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


def test_collate_shapes():
    task = bound()
    features = [part for row in ROWS for part in task.encode(row, PromptEncoder(TOKENIZER, TEMPLATE, 1000))]
    batch = task.collate(features)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, max(len(f.ids) for f in features))
    assert batch["labels"].tolist() == [1, 0, 1]


def test_inputs_are_cut_and_counted(bert_classifier):
    base = bert_classifier(**fitted().head(None).loading)
    result = evaluate(Plain(base), bound(base), ROWS, None, TEMPLATE, max_length=12)
    assert result.notes["truncated"].startswith("2 of 3")
    with pytest.raises(GraftuneError, match="line 1: the sequence is too long"):
        evaluate(Plain(base), bound(base), ROWS, None, TEMPLATE, max_length=8)


def test_errors(llama_classifier):
    with pytest.raises(GraftuneError, match="two labels or more"):
        Classify().fit(ROWS[:1])
    with pytest.raises(GraftuneError, match="labels are not known yet"):
        Classify().head(None)
    with pytest.raises(GraftuneError, match=r"line 9: unknown label 'god' \(known: 'bad', 'good'\)"):
        check(bound(), [Row("x", "god", 9)])
    with pytest.raises(GraftuneError, match="solved examples as text are not for the task 'classify'"):
        fitted().demonstration(ROWS[0])
    with pytest.raises(GraftuneError, match="no padding token"):
        bound(llama_classifier(num_labels=2))
    with pytest.raises(GraftuneError, match="no rows"):
        check(bound(), [])
