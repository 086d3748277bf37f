"""The linear probe trains the new head on the base's own features, and nothing else."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from graftune.errors import GraftuneError
from graftune.methods import LinearProbe
from graftune.model.adapted import AdaptedModel

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def probed():
    torch.manual_seed(0)
    base = BertForSequenceClassification(BertConfig(**SIZES, vocab_size=40, num_labels=3)).double().eval()
    model = AdaptedModel(base)
    model.add("a", LinearProbe(), heads=("classifier",), seed=0).double()
    return base, model


def test_it_trains_the_head_alone():
    base, model = probed()
    assert model.count("a").trained == model.count("a").stored == 16 * 3 + 3
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_its_gradient_is_that_of_multinomial_regression_on_the_features():
    """dL/dW = Σ (softmax(W h + b) - y) hᵀ / n, and dL/db without h."""
    base, model = probed()
    ids, labels = torch.randint(1, 40, (5, 7)), torch.tensor([0, 1, 2, 1, 0])
    with torch.no_grad():
        features = base.bert(ids).pooler_output
        over = (base.classifier(features)).softmax(-1) - torch.nn.functional.one_hot(labels, 3)
    model(input_ids=ids, labels=labels, adapters="a").loss.backward()
    found = {parameter.shape: parameter.grad for parameter in model.parameters_of("a")}
    torch.testing.assert_close(found[3, 16], over.T @ features / 5)
    torch.testing.assert_close(found[3,], over.mean(0))


def test_rows_without_it_are_the_bases():
    _, model = probed()
    ids = torch.randint(1, 40, (2, 7))
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.add_(1)
        mixed = model(input_ids=ids, adapters=["a", None]).logits
        plain = model(input_ids=ids, adapters=None).logits
    torch.testing.assert_close(mixed[1], plain[1])
    assert (mixed[0] - plain[0]).abs().min() > 0.1


def test_a_base_without_a_new_head_has_nothing_to_train():
    model = AdaptedModel(GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40)))
    with pytest.raises(GraftuneError, match="LinearProbe fits no site of this base"):
        model.add("a", LinearProbe())
