"""Whatever a conversation, a pattern or a chat template is: it is encoded, or refused in words."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path

import pytest
from chat_tokenizers import SHAPES, tokenizer_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftune.datasets.values import InvalidValue, conversation
from graftune.errors import GraftuneError
from graftune.templates import Template
from graftune.templates.chat import Chat
from graftune.templates.chat_template import ChatTemplate
from graftune.templates.template import NoRoom
from real_tokenizers import TOKENIZERS

FIRST = 5000  # the first virtual id
REFUSED = (InvalidValue, GraftuneError, NoRoom)

PIECES = [
    "{input}", "{text}", "{", "}", "{{", "}}", "{sep}", "{mask}", "{P:3}", "{P:0}", "{P:}", "{P:x}", "{P:99999999999}",
    "{}", "{ input }", "{input!r}", "{input:>9}", "{0}", "a", " ", "\n", "é", "你", "\0", "</s>", "[SEP]", "<|im_end|>",
]  # fmt: skip
patterns = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)
texts = st.text(max_size=12) | st.sampled_from(["</s>", "[MASK]", "<|im_end|>", "\u200b", " ", ""])

ROLES = ["user", "assistant", "system", "tool", "human", "gpt", "Model", "function_call", "odd", "", None, 3]
CALLS = [
    None, [], {}, "[]", "x", [{"name": "f", "arguments": {}}], [{"function": {"name": "f", "arguments": "{"}}],
    [{"function": {"name": "f", "arguments": {"a": 1}}}], [None],
]  # fmt: skip
contents = (
    texts
    | st.none()
    | st.integers()
    | st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "image"])}, optional={"text": texts}), max_size=3
    )
)
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(ROLES),
            "from": st.sampled_from(ROLES),
            "content": contents,
            "value": contents,
            "tool_calls": st.sampled_from(CALLS),
            "name": texts | st.none(),
            "reasoning_content": texts | st.none(),
            "weight": st.sampled_from([0, 1, 0.5, "1", None]),
        },
    ),
    max_size=6,
)
turns = st.tuples(texts.filter(str.strip), texts.filter(str.strip)).map(
    lambda said: [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}]
)
likely = st.lists(turns, min_size=1, max_size=3).map(lambda found: [message for turn in found for message in turn])

STATEMENTS = [
    "{% for message in messages %}", "{% for message in messages[1:] %}", "{% endfor %}", "{% endif %}", "{% else %}",
    "{% if message.role == 'user' %}", "{% if add_generation_prompt %}", "{% if loop.first %}",
    "{{ message.content }}", "{{ message['content'] | trim }}", "{{ message.role }}", "<|im_start|>", "<|im_end|>\n",
    "{{ eos_token }}", "{{ bos_token }}", "{% generation %}", "{% endgeneration %}", "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}", "{{ x.y.z }}", "{{ messages[9] }}", "{{ message.content + 1 }}", "{% set x = messages %}",
    "{{ strftime_now('%d') }}", "{%", "}}", "\n", "{{ message.content.split('</think>')[-1] }}",
    "{{ message | tojson }}", "{% include 'x' %}", "{{ self }}", "a",
]  # fmt: skip
chat_templates = st.lists(st.sampled_from(STATEMENTS), max_size=12).map("".join) | st.tuples(
    st.sampled_from(STATEMENTS), st.sampled_from(STATEMENTS), st.sampled_from(STATEMENTS)
).map(lambda parts: STATEMENTS[0] + "".join(parts) + "{{ message.content }}{% endfor %}")


def cases(count: int):
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


def pattern_is_filled_or_refused(name, pattern, text, other, limit) -> None:
    with suppress(*REFUSED):
        found = Template(pattern).encode(TOKENIZERS[name](), {"input": text, "text": other}, FIRST, limit)
        assert limit is None or len(found.ids) <= limit
        assert sum(token >= FIRST for token in found.ids) == Template(pattern).virtual_tokens


def conversation_is_read_or_refused(chat, talk, limit) -> None:
    with suppress(*REFUSED):
        read = conversation(talk, Path())
        rows = chat.rows(read, max_length=limit)
        assert all(limit is None or len(row.ids) <= limit for row in rows)
        assert all(len(row.ids) == len(row.answer) and any(row.answer) for row in rows)
        chat.prompt(read[:-1], max_length=limit)


def chat_template_is_used_or_refused(source, talk) -> None:
    changed = copy.copy(tokenizer_for("chatml"))
    changed.chat_template = source
    conversation_is_read_or_refused(Chat(ChatTemplate(changed)), talk, None)


PATTERNS = given(st.sampled_from(sorted(TOKENIZERS)), patterns, texts, texts, st.none() | st.integers(0, 30))
TALKS = given(st.sampled_from(sorted(SHAPES)), messages | likely, st.none() | st.integers(1, 60))
SOURCES = given(chat_templates, likely)
chats = {name: Chat(ChatTemplate(tokenizer_for(name))) for name in SHAPES}


@cases(150)
@PATTERNS
def test_patterns(name, pattern, text, other, limit):
    pattern_is_filled_or_refused(name, pattern, text, other, limit)


@cases(100)
@TALKS
def test_conversations(name, talk, limit):
    conversation_is_read_or_refused(chats[name], talk, limit)


@cases(100)
@SOURCES
def test_chat_templates(source, talk):
    chat_template_is_used_or_refused(source, talk)


@pytest.mark.slow
@cases(8000)
@PATTERNS
def test_many_patterns(name, pattern, text, other, limit):
    pattern_is_filled_or_refused(name, pattern, text, other, limit)


@pytest.mark.slow
@cases(6000)
@TALKS
def test_many_conversations(name, talk, limit):
    conversation_is_read_or_refused(chats[name], talk, limit)


@pytest.mark.slow
@cases(4000)
@SOURCES
def test_many_chat_templates(source, talk):
    chat_template_is_used_or_refused(source, talk)
