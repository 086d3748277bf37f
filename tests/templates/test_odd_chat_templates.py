"""Chat templates that do more to texts than to write them, that change from call to call, or that no answer fits."""

from __future__ import annotations

import json
import time

import pytest
from chat_tokenizers import tokenizer_for
from transformers import GPT2Config

from graftune.datasets import Row
from graftune.datasets.columns import texts
from graftune.errors import GraftuneError
from graftune.tasks import Instruct
from graftune.templates.chat import Chat
from graftune.templates.chat_template import UNSAID, ChatTemplate
from graftune.templates.control import GUARD

TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ TEXT }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ANSWER = {"role": "assistant", "content": "No rain."}


def chat_of(template):
    tokenizer = tokenizer_for("chatml", fresh=True)
    tokenizer.chat_template = template
    return Chat(ChatTemplate(tokenizer))


def controls(chat, ids):
    tokenizer = chat.chat_template.tokenizer
    return [token for token in ids if token in tokenizer.added_tokens_decoder]


def asked(text):
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("change", "text", "read"),
    [
        ("m.content | lower", "so <|IM_END|> it is", "so <|im_end|> it is"),
        ("m.content.lower()", "so <|IM_END|> it is", "so <|im_end|> it is"),
        ("m.content | replace(' ', '')", "so <| im_ end |> it is", "so<|im_end|>itis"),
        ("m.content.replace('@', '')", "<@|@i@m_end|>", "<|im_end|>"),
        ("m.content.split('@') | join", "<|im_@end|>", "<|im_end|>"),
        ("m.content[1:]", "<<|im_end|>", "<|im_end|>"),
        ("m.content[:-1]", "<|im_end|>>", "<|im_end|>"),
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_text_that_a_template_changes_into_a_control_token_stays_text(change, text, read, role):
    chat = chat_of(TURN.replace("TEXT", change) + ASK)
    wanted, plain = (
        [{**m, "content": own} if m["role"] == role else m for m in (asked("and today?"), ANSWER)]
        for own in (text, "xx it is x")
    )
    (row,), (other,) = chat.rows(wanted), chat.rows(plain)
    assert controls(chat, row.ids) == controls(chat, other.ids)
    assert read in chat.chat_template.tokenizer.decode(row.ids)


def test_texts_that_a_template_joins_make_no_control_token():
    chat = chat_of(
        "<|im_start|>user\n{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>' }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        + ASK
    )
    talk = [{"role": "system", "content": "say <|im_"}, asked("end|> please")]
    ids = chat.prompt(talk).ids
    assert "say <|im_end|> please" in chat.chat_template.tokenizer.decode(ids)
    assert controls(chat, ids) == controls(chat, chat.prompt([asked("x")]).ids)


@pytest.mark.parametrize("text", ["a < b | c > d_e", "<b>fett</b> [1]", f"x{GUARD}y", "it's <think> alone", "|>"])
def test_where_nothing_was_kept_apart_ids_are_those_of_the_tokenizer(text):
    chat = chat_of(TURN.replace("TEXT", "m.content | replace('@', '')") + ASK)
    tokenizer, talk = chat.chat_template.tokenizer, [asked(text), ANSWER]
    assert chat.rows(talk)[0].ids == tokenizer.apply_chat_template(talk, return_dict=False)[:-1]
    assert chat.prompt(talk[:1]).ids == tokenizer.apply_chat_template(
        talk[:1], add_generation_prompt=True, return_dict=False
    )


def test_tags_that_a_template_looks_for_in_a_text_it_still_finds():
    body = "m.content.split('</note>')[-1].strip() | replace('@', 'at')"
    chat = chat_of(TURN.replace("TEXT", body) + ASK)
    assert "aside" not in chat.chat_template.tokenizer.decode(chat.prompt([asked("<note>aside</note> on")]).ids)


def test_the_time_does_not_pass_between_a_prompt_and_its_answer():
    now = "<|im_start|>system\nNow {{ strftime_now('%H:%M:%S.%f') }}<|im_end|>\n"
    chat = chat_of(now + TURN.replace("TEXT", "m.content") + ASK)
    prompt = chat.prompt([asked("and today?")]).ids
    time.sleep(0.01)
    (row,) = chat.rows([asked("and today?"), ANSWER])
    assert row.ids[: len(prompt)] == prompt and not any(row.answer[: len(prompt)])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (TURN.replace("TEXT", "m.content ~ ' ' ~ (range(90000) | random)") + ASK, "another text each time"),
        (TURN.replace("messages", "messages | reverse").replace("TEXT", "m.content"), "before what it is asked by"),
        ("{{ messages | tojson }}", "before an answer to be given"),
    ],
)
def test_a_template_that_no_answer_can_be_learned_with_is_refused(template, words):
    with pytest.raises(GraftuneError, match=words):
        chat_of(template).rows([asked("and today?"), ANSWER])
    with pytest.raises(GraftuneError, match="not one to train with"):
        chat_of(template).prompt([asked("and today?")])


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content }}", "{{ messages[0]", "{% if %}x{% endif %}"]
)
def test_a_template_that_is_no_jinja_is_the_templates_fault(template):
    with pytest.raises(GraftuneError, match="chat template cannot be read"):
        chat_of(template).prompt([asked("and today?")])


def test_without_a_chat_template_it_is_said_which_form_is_taken():
    tokenizer = tokenizer_for("chatml", fresh=True)
    row = Row((asked("and today?"),), ANSWER, 1)
    assert Instruct().bind(GPT2Config(), tokenizer).remarks([row]) == []
    tokenizer.chat_template = None
    assert Instruct().bind(GPT2Config(), tokenizer).remarks([row]) == [UNSAID]


# Tools ----------------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("written", [TOOLS, json.dumps(TOOLS)])
def test_a_column_of_tools_reaches_the_template(written):
    tokenizer = tokenizer_for("tools")
    bound = Instruct().bind(GPT2Config(), tokenizer)
    row = Row((asked("and today?"),), ANSWER, 1, columns=texts({"tools": written}, Instruct.columns.structured))
    ids = Chat(bound.template_of(row)).prompt(row.input).ids
    assert ids == tokenizer.apply_chat_template(
        list(row.input), tools=TOOLS, add_generation_prompt=True, return_dict=False
    )
    assert bound.problem(row) is None and "weather" in tokenizer.decode(ids)
    assert "tools" in str(bound.problem(Row(row.input, ANSWER, 1, columns={"tools": "[1]"})))


@pytest.mark.parametrize(("template", "wanted"), [("keeps", '{"price": 1.10}'), ("escapes", '{"price": 1.1}')])
def test_arguments_of_a_call_are_what_the_template_makes_of_their_text(template, wanted):
    written = "{{ c.function.arguments }}" if template == "keeps" else "{{ c.function.arguments | tojson }}"
    calls = "{% for c in m.tool_calls %}" + written + "{% endfor %}"
    chat = chat_of(TURN.replace("{{ TEXT }}", "{{ m.content or '' }}" + calls) + ASK)
    call = {"type": "function", "function": {"name": "buy", "arguments": '{"price": 1.10}'}}
    talk = [asked("and today?"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    (row,) = chat.rows(talk)
    assert f"assistant\n{wanted}<|im_end|>" in chat.chat_template.tokenizer.decode(row.ids)


# What an assistant writes ---------------------------------------------------------------------------------------


def test_special_tokens_that_frame_no_turn_are_the_assistants_to_write():
    tokenizer = tokenizer_for("chatml", fresh=True)
    tokenizer.chat_template = TURN.replace("TEXT", "m.content") + ASK + "{% if tools %}<|python_tag|>{% endif %}"
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|python_tag|>"]})
    chat = Chat(ChatTemplate(tokenizer))
    for said in ("[THINK]6 times 7[/THINK]It is 42.", "<|python_tag|>print(6 * 7)"):
        talk = [asked("and today?"), {"role": "assistant", "content": said}]
        assert chat.rows(talk)[0].ids == tokenizer.apply_chat_template(talk, return_dict=False)[:-1]
        ids = chat.prompt([asked(said)]).ids
        assert controls(chat, ids) == controls(chat, chat.prompt([asked("x")]).ids)
    talk = [asked("and today?"), {"role": "assistant", "content": "so <|python_tag|> it is"}]
    assert controls(chat, chat.rows(talk)[0].ids) == controls(chat, chat.rows([talk[0], ANSWER])[0].ids)
