"""Instructions: the chat template's own text, the loss on answers alone."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, T5Config

import real_tokenizers
from graftune.datasets import Row, read
from graftune.datasets.rows import rows_of
from graftune.errors import GraftuneError
from graftune.tasks import Instruct
from graftune.tasks.features import PromptEncoder
from graftune.templates import Template
from graftune.templates.template import tokens
from training.tiny import write

from .conftest import byte_level

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
FIRST = 1000
TALK = tuple(
    {"role": role, "content": text} for role, text in (("user", "good?"), ("assistant", "bad"), ("user", "he?"))
)


def said(before, text):
    return Row(before, {"role": "assistant", "content": text}, 1)


def chatty(wrap=None):
    tokenizer = byte_level(wrap)
    tokenizer.chat_template = CHAT
    return tokenizer


def bound(tokenizer, **options):
    return Instruct(**options).bind(GPT2Config(pad_token_id=0), tokenizer)


@pytest.mark.parametrize("wrap", [None, ("<s>", "")])
def test_ids_are_those_of_the_chat_template_and_labels_those_of_all_answers(wrap):
    tokenizer = chatty(wrap)
    task = bound(tokenizer, system="be good")
    (features,) = task.encode(said(TALK, "he he"), PromptEncoder(tokenizer, Template(), FIRST))
    messages = [{"role": "system", "content": "be good"}, *TALK, {"role": "assistant", "content": "he he"}]
    whole = list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))
    assert features.ids == whole[: len(features.ids)]
    assert features.ids[-1] == tokenizer.eos_token_id
    prompts = [
        len(tokenizer.apply_chat_template(messages[:n], add_generation_prompt=True, return_dict=False)) for n in (2, 4)
    ]
    answers = [len(tokens(tokenizer, text)) for text in ("bad</s>", "he he</s>")]
    spans = {place for start, size in zip(prompts, answers, strict=True) for place in range(start, start + size)}
    assert features.labels == [token if place in spans else -100 for place, token in enumerate(features.ids)]
    # what is generated from is the beginning of what is trained
    prompt = task.prompt(said(TALK, "he he"), PromptEncoder(tokenizer, Template(), FIRST)).ids
    assert features.ids[: len(prompt)] == prompt
    assert features.ids[len(prompt) :] == task.answer(said(TALK, "he he"))


def test_every_answer_of_a_conversation_is_asked_for():
    task = bound(chatty())
    asked = task.questions([said(TALK, "he he")])
    assert [(len(row.input), row.target["content"]) for row in asked] == [(1, "bad"), (3, "he he")]
    assert [task.references(row) for row in asked] == [["bad"], ["he he"]]


def test_an_encoder_reads_the_texts_and_a_decoder_writes_the_answer_with_its_end():
    tokenizer = real_tokenizers.t5()
    task = Instruct().bind(T5Config(pad_token_id=0, d_model=8), tokenizer)
    (pair,) = task.encode(said(TALK[2:], "the boat"), PromptEncoder(tokenizer))
    assert pair.ids == tokenizer("he?").input_ids
    assert pair.labels == tokenizer("the boat").input_ids
    _, second = task.encode(said(TALK, "the boat"), PromptEncoder(tokenizer))
    assert second.ids == tokenizer("good?\nbad\nhe?").input_ids


def test_a_system_message_that_the_template_refuses_is_folded_and_that_is_said():
    tokenizer = chatty()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    )
    task = bound(tokenizer, system="be good")
    (features,) = task.encode(said(TALK[-1:], "x"), PromptEncoder(tokenizer, Template(), FIRST))
    assert "be good" in tokenizer.decode(features.ids)
    assert task.problem(said(TALK[-1:], "x")) is None
    (remark,) = task.remarks([said(TALK[-1:], "x")])
    assert "no system role" in remark
    assert bound(chatty(), system="be good").remarks([said(TALK[-1:], "x")]) == []


def test_a_refused_conversation_is_a_bad_line():
    tokenizer = chatty()
    tokenizer.chat_template = "{{ raise_exception('only weather') }}" + CHAT
    assert "only weather" in bound(tokenizer).problem(said(TALK, "x"))


def test_a_tokenizer_without_a_template_gets_headings():
    tokenizer = byte_level()
    (features,) = bound(tokenizer).encode(
        said(({"role": "user", "content": "hi"},), "he"), PromptEncoder(tokenizer, Template(), FIRST)
    )
    text = "### User:\nhi\n\n### Assistant:\n"
    assert features.ids == tokens(tokenizer, text) + tokens(tokenizer, "he") + [tokenizer.eos_token_id]


def test_a_methods_template_stands_around_the_last_question():
    tokenizer = chatty()
    template = Template("{P:2}{input}{P:1}")
    # It is around another question where an earlier answer is generated: that one has a row of its own.
    first, features = bound(tokenizer).encode(said(TALK, "x"), PromptEncoder(tokenizer, template, FIRST))
    question = first.ids[first.ids.index(FIRST) + 2 : first.ids.index(FIRST + 2)]
    assert question == tokens(tokenizer, "good?")
    place = features.ids.index(FIRST)
    assert features.ids[place : place + 2] == [FIRST, FIRST + 1]
    assert features.ids[place + 2 : features.ids.index(FIRST + 2)] == tokens(tokenizer, "he?")


def test_what_is_too_long_loses_its_oldest_messages_first():
    tokenizer = chatty()
    (short,) = bound(tokenizer).encode(said(TALK[2:], "x"), PromptEncoder(tokenizer, Template(), FIRST))
    _, cut = bound(tokenizer).encode(said(TALK, "x"), PromptEncoder(tokenizer, Template(), FIRST, len(short.ids)))
    assert (cut.ids, cut.truncated) == (short.ids, True)
    *_, less = bound(tokenizer).encode(said(TALK, "x"), PromptEncoder(tokenizer, Template(), FIRST, len(short.ids) - 1))
    assert len(less.ids) == len(short.ids) - 1
    assert less.ids[-2:] == short.ids[-2:]
    with pytest.raises(GraftuneError, match="line 1: the sequence is too long"):
        bound(tokenizer).encode(said(TALK, "x"), PromptEncoder(tokenizer, Template(), FIRST, 12))


ALPACA = [
    {"instruction": "sum", "input": "1 2", "output": "3"},
    {"instruction": "greet", "input": "", "output": "hi"},
]


def test_alpacas_input_is_read_and_a_misspelt_context_refused(tmp_path):
    rows = read(write(tmp_path / "a.jsonl", ALPACA), columns=Instruct.columns).rows
    task = Instruct().fit(rows)
    assert task.context == "input"
    assert [task.messages(row)[-1]["content"] for row in rows] == ["sum\n\n1 2", "greet"]
    assert Instruct(context="").fit(rows).messages(rows[0])[-1]["content"] == "sum"
    with pytest.raises(GraftuneError, match="unknown column 'inputt'"):
        Instruct(context="inputt").fit(rows)
    # a file without an instruction has its question in `input`
    plain = read(write(tmp_path / "b.jsonl", [{"input": "1 2", "output": "3"}]), columns=Instruct.columns).rows
    assert Instruct().fit(plain).context == ""
    # what is typed in has only what was given
    assert task.messages(rows_of(["sum"], Instruct.columns)[0])[-1]["content"] == "sum"
    assert task.messages(rows_of([ALPACA[0]], Instruct.columns)[0])[-1]["content"] == "sum\n\n1 2"


def test_a_context_column_follows_the_instruction():
    row = Row(({"role": "user", "content": "sum"},), None, 1, columns={"input": "1 2"})
    task = Instruct(context="input")
    assert task.messages(row)[-1]["content"] == "sum\n\n1 2"
    assert (
        task.messages(Row(({"role": "user", "content": "sum"},), None, 1, columns={"input": ""}))[-1]["content"]
        == "sum"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"no_repeat_gram_size": 3}, "did you mean 'no_repeat_ngram_size'?"),
        ({"num_return_sequences": 2}, "does not take 'num_return_sequences'"),
        ({"return_dict_in_generate": True}, "does not take 'return_dict_in_generate'"),
        ({"max_length": 9}, "does not take 'max_length'"),
        ({"num_beams": 2}, "use instruct.num_beams"),
        ({"temperature": -1.0, "do_sample": True}, "temperature"),
        ({"top_p": 3.0}, "top_p"),
        ({"no_repeat_ngram_size": -2}, "ngram_size"),
    ],
)
def test_settings_of_generation_are_looked_at_before_anything_runs(settings, words):
    with pytest.raises(GraftuneError) as caught:
        Instruct(generation=settings)
    assert words in str(caught.value)


def test_good_settings_of_generation_pass():
    settings = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "do_sample": True, "top_p": 0.9}
    assert Instruct(generation=settings).generation == settings
