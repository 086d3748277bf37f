"""A byte-level tokenizer, tiny random bases and a stand-in for the adapted model."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)

SPECIALS = ["<pad>", "<s>", "</s>", "[CLS]", "[SEP]", "[MASK]"]
MERGES = [("Ġ", "g"), ("Ġ", "b"), ("h", "e"), ("Ġ", "he"), (".", "Ċ")]


def byte_level(wrap: tuple[str, str] | None = None, merges: bool = True, **options: Any) -> Any:
    """A byte-level BPE tokenizer; `wrap` = the special tokens it puts around a text."""
    pairs = MERGES if merges else []
    words = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if wrap:
        single = " ".join(piece for piece in (wrap[0], "$A", wrap[1]) if piece)
        used = [(piece, vocabulary[piece]) for piece in wrap if piece]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=used)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **({"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | options),
    )


def check_probabilities(result: Any, task: Any, rows: Any, scores: Any) -> None:
    """Compare with float64 probabilities of each row alone."""
    losses, right = [], 0
    with torch.no_grad():
        for row, item in zip(rows, result.predictions, strict=True):
            chances = scores(row).double().softmax(-1).tolist()
            losses.append(-math.log(chances[task.labels.index(row.target)]))
            assert item["probabilities"] == pytest.approx(dict(zip(task.labels, chances, strict=True)), abs=1e-5)
            assert item["prediction"] == task.labels[chances.index(max(chances))]
            assert (item["line"], item["input"], item["target"]) == (row.line, row.input, row.target)
            right += item["prediction"] == row.target
    assert result.metrics["loss"] == pytest.approx(sum(losses) / len(rows), rel=1e-5)
    assert result.metrics["accuracy"] == pytest.approx(right / len(rows))
    assert set(result.metrics) == {"accuracy", "f1", "loss"}


class Plain:
    """Stands in for the adapted model: only the plain base, whatever the adapter's name."""

    def __init__(self, base: Any) -> None:
        self.base, self.config = base, base.config
        self.positions = self.target_positions = base.config.max_position_embeddings
        self.calls: list[Any] = []

    def room(self, name: str | None) -> int | None:
        return self.positions

    def adapter(self, name: str) -> Any:
        return SimpleNamespace(method=SimpleNamespace(trainable=True), virtual_tokens=0)

    def __call__(self, *, adapters: str | None, **batch: torch.Tensor) -> Any:
        self.calls.append(adapters)
        return self.base(**batch)

    def hidden(self, *, adapters: str | None, **batch: torch.Tensor) -> torch.Tensor:
        self.calls.append(adapters)
        return self.base(**batch, output_hidden_states=True).hidden_states[-1]

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base.get_output_embeddings()(hidden)

    def generate(self, *, adapters: str | None, **options: Any) -> torch.Tensor:
        self.calls.append(adapters)
        return self.base.generate(**options)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_level()


@pytest.fixture(scope="session")
def decoder_tokenizer() -> Any:
    return byte_level(wrap=("<s>", ""))


@pytest.fixture(scope="session")
def encoder_tokenizer() -> Any:
    return byte_level(wrap=("[CLS]", "[SEP]"))


@pytest.fixture(scope="session")
def gpt2(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=96,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config).eval()


def _llama(tokenizer: Any, **options: Any) -> LlamaConfig:
    return LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        | options
    )


@pytest.fixture(scope="session")
def llama(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(_llama(tokenizer, initializer_range=0.5)).eval()


@pytest.fixture
def llama_classifier(tokenizer: Any) -> Any:
    def build(**options: Any) -> Any:
        torch.manual_seed(0)
        return LlamaForSequenceClassification(_llama(tokenizer, **options)).eval()

    return build


@pytest.fixture
def bert_classifier(tokenizer: Any) -> Any:
    def build(**options: Any) -> Any:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
            **options,
        )
        return BertForSequenceClassification(config).eval()

    return build
