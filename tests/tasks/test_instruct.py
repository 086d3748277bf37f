"""Instructions: the chat template's own text, the loss on answers alone."""

from __future__ import annotations

import pytest
from transformers import GPT2Config

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
TALK = (("user", "good?"), ("assistant", "bad"), ("user", "he?"))


def chatty(wrap=None):
    tokenizer = byte_level(wrap)
    tokenizer.chat_template = CHAT
    return tokenizer


def bound(tokenizer, **options):
    return Instruct(**options).bind(GPT2Config(pad_token_id=0), tokenizer)


def rendered(tokenizer, messages, ask):
    named = [{"role": role, "content": text} for role, text in messages]
    return tokenizer.apply_chat_template(named, tokenize=False, add_generation_prompt=ask)


@pytest.mark.parametrize("wrap", [None, ("<s>", "")])
def test_ids_are_those_of_the_chat_template_and_labels_those_of_the_answer(wrap):
    tokenizer = chatty(wrap)
    (features,) = bound(tokenizer, system="be good").encode(
        Row(TALK, "he he", 1), PromptEncoder(tokenizer, Template(), FIRST)
    )
    messages = (("system", "be good"), *TALK)
    prompt = tokens(tokenizer, rendered(tokenizer, messages, True))  # begins with <s>, which is not doubled
    answer = tokens(tokenizer, "he he</s>")
    assert features.ids == prompt + answer
    assert features.labels == [-100] * len(prompt) + answer


def test_a_tokenizer_without_a_template_gets_headings():
    tokenizer = byte_level()
    (features,) = bound(tokenizer).encode(Row((("user", "hi"),), "he", 1), PromptEncoder(tokenizer, Template(), FIRST))
    text = "### User:\nhi\n\n### Assistant:\n"
    assert features.ids == tokens(tokenizer, text) + tokens(tokenizer, "he") + [tokenizer.eos_token_id]


def test_a_methods_template_stands_around_the_last_question():
    tokenizer = chatty()
    (features,) = bound(tokenizer).encode(
        Row(TALK, "x", 1), PromptEncoder(tokenizer, Template("{P:2}{input}{P:1}"), FIRST)
    )
    place = features.ids.index(FIRST)
    assert features.ids[place : place + 2] == [FIRST, FIRST + 1]
    assert features.ids[place + 2 : features.ids.index(FIRST + 2)] == tokens(tokenizer, "he?")


def test_what_is_too_long_loses_its_oldest_messages_first():
    tokenizer = chatty()
    (short,) = bound(tokenizer).encode(Row(TALK[2:], "x", 1), PromptEncoder(tokenizer, Template(), FIRST))
    (cut,) = bound(tokenizer).encode(Row(TALK, "x", 1), PromptEncoder(tokenizer, Template(), FIRST, len(short.ids)))
    assert (cut.ids, cut.truncated) == (short.ids, True)
    (less,) = bound(tokenizer).encode(
        Row(TALK, "x", 1), PromptEncoder(tokenizer, Template(), FIRST, len(short.ids) - 1)
    )
    assert len(less.ids) == len(short.ids) - 1
    assert less.ids[-2:] == short.ids[-2:]
    with pytest.raises(GraftuneError, match="line 1: the sequence is too long"):
        bound(tokenizer).encode(Row(TALK, "x", 1), PromptEncoder(tokenizer, Template(), FIRST, 12))


ALPACA = [
    {"instruction": "sum", "input": "1 2", "output": "3"},
    {"instruction": "greet", "input": "", "output": "hi"},
]


def test_alpacas_input_is_read_and_a_misspelt_context_refused(tmp_path):
    rows = read(write(tmp_path / "a.jsonl", ALPACA), columns=Instruct.columns).rows
    task = Instruct().fit(rows)
    assert task.context == "input"
    assert [task.messages(row)[-1][1] for row in rows] == ["sum\n\n1 2", "greet"]
    assert Instruct(context="").fit(rows).messages(rows[0])[-1][1] == "sum"
    with pytest.raises(GraftuneError, match="unknown column 'inputt'"):
        Instruct(context="inputt").fit(rows)
    # a file without an instruction has its question in `input`
    plain = read(write(tmp_path / "b.jsonl", [{"input": "1 2", "output": "3"}]), columns=Instruct.columns).rows
    assert Instruct().fit(plain).context == ""
    # what is typed in has only what was given
    assert task.messages(rows_of(["sum"], Instruct.columns)[0])[-1][1] == "sum"
    assert task.messages(rows_of([ALPACA[0]], Instruct.columns)[0])[-1][1] == "sum\n\n1 2"


def test_a_context_column_follows_the_instruction():
    row = Row((("user", "sum"),), "x", 1, columns={"input": "1 2"})
    task = Instruct(context="input")
    assert task.messages(row)[-1][1] == "sum\n\n1 2"
    assert task.messages(Row((("user", "sum"),), "x", 1, columns={"input": ""}))[-1][1] == "sum"
