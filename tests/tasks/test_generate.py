"""Generation: what is trained on, what is lost, and what is written, checked one row at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config

from graftune.datasets import Row
from graftune.errors import GraftuneError
from graftune.inference.evaluation import evaluate
from graftune.tasks import Features, Generate, from_state, state_of
from graftune.tasks.features import PromptEncoder
from graftune.templates import Template
from graftune.templates.template import tokens

from .conftest import Plain, byte_level

TOKENIZER = byte_level(("<s>", "</s>"))
FIRST = 1000
TEMPLATE = Template("{P:2}Say: {input}")
ROWS = [Row("one", "yes he", 1), Row("a longer input", "no", 2), Row("one", "yes", 3), Row("b", "perhaps", 5)]


def bound(base=None, pad=0, **options):
    config = GPT2Config(pad_token_id=pad) if base is None else base.config
    return Generate(**options).bind(config, TOKENIZER)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(words, words, st.sampled_from(["\n", "", " => "]))
def test_ids_are_prompt_separator_target_and_end(input, target, separator):
    features = bound(separator=separator).encode(Row(input, target, 1), PromptEncoder(TOKENIZER, TEMPLATE, FIRST))[0]
    prompt = TEMPLATE.encode(TOKENIZER, input, FIRST, suffix=False).ids + tokens(TOKENIZER, separator)
    learned = [*tokens(TOKENIZER, target), TOKENIZER.eos_token_id]
    assert features == Features(prompt + learned, [-100] * len(prompt) + learned, False)


@given(words, words, st.integers(1, 60))
def test_a_limit_cuts_the_input_and_never_the_target(input, target, limit):
    row, task = Row(input, target, 7), bound()
    whole = task.encode(row, PromptEncoder(TOKENIZER, TEMPLATE, FIRST))[0]
    learned = [*tokens(TOKENIZER, target), TOKENIZER.eos_token_id]
    # <s>, two virtual tokens, the words of the template, the separator and the target
    fixed = 1 + 2 + len(tokens(TOKENIZER, "Say: ")) + 1 + len(learned)
    if limit < len(whole.ids) and limit <= fixed:
        with pytest.raises(GraftuneError, match="line 7: the sequence is too long"):
            task.encode(row, PromptEncoder(TOKENIZER, TEMPLATE, FIRST, limit))[0]
        return
    features = task.encode(row, PromptEncoder(TOKENIZER, TEMPLATE, FIRST, limit))[0]
    assert len(features.ids) == len(features.labels) <= limit
    assert features.ids[-len(learned) :] == learned
    assert [label for label in features.labels if label != -100] == learned
    if len(whole.ids) <= limit:
        assert features == whole


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_collate_pads_on_the_right(lengths):
    features = [Features(list(range(1, n + 1)), [-100] * (n - 1) + [n]) for n in lengths]
    batch = bound(pad=9).collate(features)
    assert {tensor.shape for tensor in batch.values()} == {(len(lengths), max(lengths))}
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    for i, n in enumerate(lengths):
        assert batch["input_ids"][i].tolist() == [*range(1, n + 1)] + [9] * (max(lengths) - n)
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (max(lengths) - n)
        assert batch["labels"][i, n:].eq(-100).all()
    assert set(bound().model_inputs(batch)) == {"input_ids", "attention_mask"}


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16]))
def test_loss_is_the_float64_mean_over_targets(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (5 * torch.randn(3, 6, 11, generator=generator)).to(dtype)
    labels = torch.randint(0, 11, (3, 6), generator=generator)
    labels[torch.rand(3, 6, generator=generator) < 0.4] = -100
    labels[0, 5] = 3
    expected = [
        -logits[i, j - 1].double().log_softmax(-1)[labels[i, j]]
        for i in range(3)
        for j in range(1, 6)
        if labels[i, j] != -100
    ]
    outputs, batch = SimpleNamespace(logits=logits), {"labels": labels}
    losses, counts = bound().losses(outputs, batch), bound().counts(batch)
    assert losses.dtype == torch.float32
    assert losses.shape == counts.shape == (3, 1)
    assert (losses.sum() / counts.sum()).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_evaluation_equals_one_row_at_a_time(request, base, batch_size):
    base = request.getfixturevalue(base)
    task, template, model, done = bound(base, max_new_tokens=6), Template("Say: {input}"), Plain(base), []
    result = evaluate(model, task, ROWS, "alice", template, batch_size=batch_size, progress=done.append)
    total, count = 0.0, 0
    for row in ROWS:
        (features,) = task.encode(row, PromptEncoder(TOKENIZER, template, FIRST))
        ids, labels = torch.tensor([features.ids]), torch.tensor([features.labels])
        count += (number := int((labels != -100).sum()))
        total += base(input_ids=ids, labels=labels).loss.item() * number
    assert result.metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert [item["line"] for item in result.predictions] == [1, 2, 5]
    assert [item["references"] for item in result.predictions] == [["yes he", "yes"], ["no"], ["perhaps"]]
    for item in result.predictions:
        prompt = TOKENIZER(f"Say: {item['input']}\n").input_ids[:-1]  # without </s>
        ids = base.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
        assert item["prediction"] == TOKENIZER.decode(ids[0, len(prompt) :], skip_special_tokens=True).strip()
    assert sum(done) == len(ROWS)
    assert set(model.calls) == {"alice"}
    assert set(result.metrics) == {"bleu", "chrf", "rougeL", "loss", "perplexity"}
    assert Generate.metric in result.metrics
    assert result.notes["truncated"].startswith("0 of 3")
    assert "nrefs:var" in result.notes["bleu"]


class Scripted(Plain):
    """Writes a fixed answer for each prompt length, then the end, then noise."""

    def generate(self, *, input_ids, attention_mask, adapters, **options):
        assert attention_mask[:, -1].all(), "padding belongs on the left"
        (end,), noise = options["eos_token_id"], tokens(TOKENIZER, "noise")
        longest = max(len(tokens(TOKENIZER, row.target)) for row in ROWS)
        out = []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            prompt = TOKENIZER.decode([i for i, m in zip(ids, mask, strict=True) if m], skip_special_tokens=True)
            answer = tokens(TOKENIZER, {row.input: row.target for row in ROWS}[prompt.strip()])
            out.append((ids + answer + [end] + noise * longest)[: len(ids) + longest + 4])
        return torch.tensor(out)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_predictions_come_in_the_order_of_the_rows_and_stop_at_the_end(llama, batch_size):
    result = evaluate(Scripted(llama), bound(llama), ROWS, None, Template("{input}"), batch_size=batch_size)
    assert [item["prediction"] for item in result.predictions] == ["yes", "no", "perhaps"]
    assert result.metrics["rougeL"] == pytest.approx(100)


def test_modes_are_restored(llama):
    model = Plain(llama)
    llama.train()
    llama.model.layers[0].eval()
    before = [module.training for module in llama.modules()]
    evaluate(model, bound(llama, max_new_tokens=1), ROWS[:1], None, Template("{input}"))
    assert [module.training for module in llama.modules()] == before
    llama.eval()


def test_long_prompts_leave_room_for_the_new_tokens(gpt2):
    rows = [Row("x" * 85, "y", 1)]
    result = evaluate(Plain(gpt2), bound(gpt2, max_new_tokens=20), rows, None, Template("{input}"))
    assert result.notes["truncated"].startswith("1 of 1")
    with pytest.raises(GraftuneError, match="less than the 96 tokens"):
        evaluate(Plain(gpt2), bound(gpt2, max_new_tokens=96), rows, None, Template("{input}"))


def test_beams_and_an_end_of_text_as_padding(llama):
    tokenizer = byte_level(pad_token=None)
    task = Generate(max_new_tokens=3, num_beams=2).bind(llama.config, tokenizer)
    result = evaluate(Plain(llama), task, ROWS, None, Template("{input}"))
    assert len(result.predictions) == 3


def test_demonstrations_are_solved_examples():
    task = Generate(separator=" -> ")
    assert [task.demonstration(row) for row in ROWS[:2]] == ["one -> yes he\n\n", "a longer input -> no\n\n"]


def test_state_returns_an_equal_task():
    task = Generate(max_new_tokens=5, separator="|", tokenize="zh")
    assert from_state(state_of(task)) == task


def test_a_generating_base_needs_no_head(gpt2):
    head = Generate().fit(ROWS).head(gpt2.config)
    assert (head.modules(gpt2), head.auto_class, head.loading) == ((), "AutoModelForCausalLM", {})


def test_errors(llama):
    with pytest.raises(GraftuneError, match="num_beams is too small"):
        Generate(num_beams=0)
    with pytest.raises(GraftuneError, match="did you mean 'zh'"):
        Generate(tokenize="zhh")
    task = Generate().bind(GPT2Config(pad_token_id=0), byte_level(eos_token=None))
    with pytest.raises(GraftuneError, match="no end-of-text token"):
        task.encode(ROWS[0], PromptEncoder(TOKENIZER, TEMPLATE, FIRST))
    with pytest.raises(GraftuneError, match="no rows to evaluate"):
        evaluate(Plain(llama), bound(llama), [], None, TEMPLATE)
