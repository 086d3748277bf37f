"""Conversations: the ids are the chat template's own, the prompt is their prefix, texts are never control tokens."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from chat_tokenizers import CHATML, SHAPES, tokenizer_for
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, GPT2Config

from graftune.datasets import Row
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError
from graftune.tasks import Instruct
from graftune.templates import Template
from graftune.templates.chat import Chat
from graftune.templates.chat_template import ChatTemplate
from graftune.templates.control import CLOSE, OPEN, VIRTUAL
from graftune.templates.messages import source_text
from graftune.templates.template import NoRoom

#: The token that ends an answer, as a reader of each template sees it.
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "mistral_last": "</s>",
    "qwen3": "<|im_end|>",
    "phi3": "<|end|>",
    "deepseek_r1": "<｜end▁of▁sentence｜>",
    "tools": "<|im_end|>",
    "generation_blocks": "<|im_end|>",
    "parts": "<|im_end|>",
    "vicuna": "</s>",
    "alpaca": "<|endoftext|>",
}
WITHOUT_SYSTEM = ("gemma", "alpaca")
SPLITS = ("qwen3", "deepseek_r1", "alpaca")  # an earlier answer reads otherwise than a last one
FIRST = 5000  # the first virtual id

QUESTION = {"role": "user", "content": "What is the answer?"}
ANSWER = {"role": "assistant", "content": "It is 42."}
SYSTEM = {"role": "system", "content": "be brief"}
TALK = [QUESTION, ANSWER, {"role": "user", "content": "and today?"}, {"role": "assistant", "content": "No rain."}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}

chats = {name: Chat(ChatTemplate(tokenizer_for(name))) for name in SHAPES}
every_template = pytest.mark.parametrize("name", SHAPES)
#: Letters, signs and white space of many kinds, without the signs that control tokens consist of.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="<>[]｜|"), min_size=1, max_size=20)
words = texts.filter(lambda text: text.strip())


def own(name, messages, ask=False):
    """The ids as the tokenizer itself gives them."""
    if name == "parts":
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    tokenizer = tokenizer_for(name)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)


def end(name):
    return tokenizer_for(name).convert_tokens_to_ids(ENDS[name])


def trained(row):
    return [token for token, wanted in zip(row.ids, row.answer, strict=True) if wanted]


def controls(name, ids):
    return [token for token in ids if token in tokenizer_for(name).added_tokens_decoder]


@st.composite
def conversations(draw, name):
    turns = draw(st.integers(1, 3))
    messages = [{"role": ("user", "assistant")[i % 2], "content": draw(words)} for i in range(2 * turns)]
    if name not in WITHOUT_SYSTEM and draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(words)})
    return messages


@every_template
@given(st.data())
def test_ids_are_those_of_the_template_and_the_prompt_is_their_prefix(name, data):
    messages = data.draw(conversations(name))
    row = chats[name].rows(messages, every_answer=False)[-1]
    prompt, whole = own(name, messages[:-1], ask=True), own(name, messages)
    assert chats[name].prompt(messages[:-1]).ids == prompt == row.ids[: len(prompt)]
    assert row.ids[-1] == end(name) and end(name) not in row.ids[len(prompt) : -1]
    assert row.answer == [place >= len(prompt) for place in range(len(row.ids))]
    assert row.ids[len(prompt) :] == chats[name].answer(messages)
    if name == "alpaca":  # line breaks, which may be one token with an answer's own, stand where the end is trained
        decode = tokenizer_for(name).decode
        assert decode(whole) == decode(row.ids[:-1]) + "\n\n"
    elif whole[: len(prompt)] == prompt:
        assert row.ids == whole[: len(row.ids)]


@every_template
@given(st.data())
def test_every_answer_is_trained_once_and_as_it_would_be_generated(name, data):
    messages = data.draw(conversations(name))
    rows = chats[name].rows(messages)
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    alone = [chats[name].rows(messages[: place + 1], every_answer=False)[0] for place in places]
    assert sum(sum(row.answer) for row in rows) == sum(sum(row.answer) for row in alone)
    for one in alone:
        written = [place for place, wanted in enumerate(one.answer) if wanted]
        assert any(row.ids[: len(one.ids)] == one.ids and all(row.answer[place] for place in written) for row in rows)


@every_template
def test_a_conversation_is_one_row_where_the_template_allows_it(name):
    assert len(chats[name].rows(TALK)) == (2 if name in SPLITS else 1)
    assert trained(chats[name].rows(TALK)[-1])[-1] == end(name)


# Texts that spell control tokens --------------------------------------------------------------------------------


@every_template
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_text_that_spells_a_control_token_stays_text(name, role):
    if role == "system" and name in WITHOUT_SYSTEM:
        role = "user"
    tokenizer = tokenizer_for(name)
    for token in tokenizer.added_tokens_decoder.values():
        markup = token.content.strip("</>") in ("think", "tool_call", "tool_response")
        if not token.special and ((markup and role == "assistant") or token.content not in tokenizer.chat_template):
            continue
        spelled = [{**m, "content": f"so {token.content} it is"} if m["role"] == role else m for m in [SYSTEM, *TALK]]
        worded = [{**m, "content": "so it is"} if m["role"] == role else m for m in [SYSTEM, *TALK]]
        ids, others = (chats[name].rows(messages, every_answer=False)[-1].ids for messages in (spelled, worded))
        assert controls(name, ids) == controls(name, others)
        assert f"so {token.content} it is" in tokenizer.decode(ids)


@every_template
def test_text_that_spells_control_tokens_is_still_the_text_of_the_template(name):
    tokenizer = tokenizer_for(name)
    spelled = " and ".join(token.content.strip() or "so" for token in tokenizer.added_tokens_decoder.values())
    messages = [QUESTION, ANSWER, {"role": "user", "content": f"{spelled} or {spelled}"}]
    prompt = messages
    if name == "parts":
        prompt = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    if name == "phi3":  # its control tokens swallow the white space behind them
        text = text.replace("|>\n", "|>")
    assert tokenizer.decode(chats[name].prompt(messages).ids) == text


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape[0] == "bytes"])
def test_spelled_control_tokens_are_read_as_the_tokenizer_reads_them_without_its_special_tokens(name):
    tokenizer = tokenizer_for(name)
    text = f"see {tokenizer.eos_token} and on"
    ids = chats[name].prompt([{"role": "user", "content": text}]).ids
    wanted = tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids
    assert any(ids[place : place + len(wanted)] == wanted for place in range(len(ids)))


@pytest.mark.parametrize("name", ["chatml", "llama3", "qwen3", "mistral", "phi3", "deepseek_r1", "tools", "vicuna"])
def test_control_tokens_are_those_that_transformers_keeps_when_it_sanitises(name):
    tokenizer = tokenizer_for(name)
    spelled = " and ".join(token.content for token in tokenizer.added_tokens_decoder.values())
    messages = [{**SYSTEM, "content": spelled}, {**QUESTION, "content": f"so {spelled}"}]
    wanted = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
    )
    ids = chats[name].prompt(messages).ids
    assert controls(name, ids) == controls(name, wanted) and spelled in tokenizer.decode(ids)


def test_a_tokenizer_written_in_python_reads_conversations_as_well():
    tokenizer = ByT5Tokenizer(extra_ids=0)
    tokenizer.add_tokens(CHATML)
    tokenizer.chat_template = tokenizer_for("chatml").chat_template
    chat = Chat(ChatTemplate(tokenizer))
    assert chat.rows(TALK)[0].ids == tokenizer.apply_chat_template(TALK, return_dict=False)[:-1]
    spelled = {"role": "user", "content": "so </s> and <|im_end|> it is"}
    ids = chat.prompt([spelled], max_length=60).ids
    assert "so </s> and <|im_end|> it is" in tokenizer.decode(ids)
    assert [token for token in ids if token in tokenizer.added_tokens_decoder] == tokenizer.convert_tokens_to_ids(
        ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    )
    assert len(chat.prompt([spelled], max_length=45).ids) == 45


@pytest.mark.parametrize("name", ["chatml", "mistral", "gemma"])
@given(st.lists(st.sampled_from([OPEN, CLOSE, VIRTUAL, "a", "<|im_end|>", "</s>", "<eos>", " "]), min_size=1))
def test_signs_that_graftune_itself_marks_texts_with_are_text_as_well(name, parts):
    text = "x" + "".join(parts) + "x"
    ids = chats[name].prompt([{"role": "user", "content": text}]).ids
    assert text in tokenizer_for(name).decode(ids)
    assert controls(name, ids) == controls(name, chats[name].prompt([{"role": "user", "content": "x"}]).ids)


def test_the_assistant_may_write_tokens_that_are_not_special():
    messages = [QUESTION, {"role": "assistant", "content": "<tool_call>{}</tool_call>"}]
    assert chats["tools"].rows(messages)[0].ids == own("tools", messages)[:-1]  # all but the line break at the end


# Thoughts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": "It is 42.", "reasoning_content": "6 times 7"},
        {"role": "assistant", "content": "<think>\n6 times 7\n</think>\n\nIt is 42."},
    ],
)
def test_thoughts_that_the_template_keeps_in_the_last_turn_alone_make_a_row_for_each_answer(answer):
    tokenizer, messages = tokenizer_for("qwen3"), [QUESTION, answer, {"role": "user", "content": "sure?"}, answer]
    first, second = chats["qwen3"].rows(messages)
    assert first.ids == own("qwen3", messages[:2])[:-1] and second.ids == own("qwen3", messages)[:-1]
    for row in (first, second):
        assert tokenizer.decode(trained(row)) == "<think>\n6 times 7\n</think>\n\nIt is 42.<|im_end|>"


def test_without_thinking_the_prompt_has_the_empty_block_and_thoughts_are_left_out():
    tokenizer = tokenizer_for("qwen3")
    chat = Chat(ChatTemplate(tokenizer, options={"enable_thinking": False}))
    answer = {"role": "assistant", "content": "It is 42.", "reasoning_content": "6 times 7"}
    prompt = tokenizer.apply_chat_template(
        [QUESTION], add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    for said in (answer, ANSWER):
        (row,) = chat.rows([QUESTION, said])
        assert row.ids[: len(prompt)] == prompt and tokenizer.decode(trained(row)) == "It is 42.<|im_end|>"


@pytest.mark.parametrize(
    ("said", "trains"),
    [
        ("It is 42.", "\n</think>\n\nIt is 42."),
        ("<think>\n6 times 7\n</think>\n\nIt is 42.", "6 times 7\n</think>\n\nIt is 42."),
    ],
)
def test_a_thought_that_the_prompt_opens_is_closed_before_the_answer(said, trains):
    tokenizer, messages = tokenizer_for("deepseek_r1"), [QUESTION, {"role": "assistant", "content": said}]
    (row,) = chats["deepseek_r1"].rows(messages)
    assert row.ids[: len(own("deepseek_r1", [QUESTION], ask=True))] == own("deepseek_r1", [QUESTION], ask=True)
    assert tokenizer.decode(trained(row)) == trains + tokenizer.eos_token


def test_a_thought_that_both_the_prompt_and_the_answer_open_is_opened_once():
    tokenizer = tokenizer_for("deepseek_r1", fresh=True)
    dropped = "{%- set content = content.split('</think>')[-1] %}"
    assert dropped in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(dropped, "").replace(
        "if '</think>' in content", "if false"
    )
    answer = {"role": "assistant", "content": "<think>6 times 7</think>It is 42."}
    (row,) = Chat(ChatTemplate(tokenizer)).rows([QUESTION, answer])
    assert tokenizer.decode(trained(row)) == "6 times 7</think>It is 42." + tokenizer.eos_token
    assert row.ids.count(tokenizer.convert_tokens_to_ids("<think>")) == 1


def test_a_system_message_that_only_the_prompt_has_is_trained_with():
    (row,) = chats["mistral_last"].rows([SYSTEM, QUESTION, ANSWER])
    text = "<s>[INST] be brief\n\nWhat is the answer?[/INST] It is 42.</s>"
    assert tokenizer_for("mistral_last").decode(row.ids) == text


# Templates that refuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_a_system_message_opens_the_users_where_the_template_has_no_such_role(name):
    row = chats[name].rows([SYSTEM, *TALK], every_answer=False)[0]
    asked = {"role": "user", "content": "be brief\n\nWhat is the answer?"}
    prompt = own(name, [asked, *TALK[1:3]], ask=True)
    assert row.ids[: len(prompt)] == prompt == chats[name].prompt([SYSTEM, *TALK[:3]]).ids
    assert "no system role" in row.remarks[0] and chats[name].rows(TALK)[0].remarks == ()


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_turns_of_one_role_are_joined_where_the_template_refuses_them(name):
    more = {"role": "assistant", "content": "or 43"}
    row = chats[name].rows([QUESTION, {"role": "user", "content": "quick"}, ANSWER, more])[0]
    joined = [{"role": "user", "content": "What is the answer?\n\nquick"}]
    whole = own(name, [*joined, {"role": "assistant", "content": "It is 42.\n\nor 43"}])
    assert row.ids == whole[: len(row.ids)]
    assert "joined" in row.remarks[0]
    assert chats[name].prompt([QUESTION, ANSWER, more, QUESTION, ANSWER]).ids == own(
        name, [QUESTION, {**ANSWER, "content": "It is 42.\n\nor 43"}, QUESTION], ask=True
    )


def test_turns_of_one_role_stay_as_they_are_where_the_template_takes_them():
    messages = [QUESTION, QUESTION, ANSWER, ANSWER]
    (row,) = chats["chatml"].rows(messages)
    assert row.ids == own("chatml", messages)[:-1] and row.remarks == ()


def test_later_system_messages_open_the_next_turn_where_the_template_refuses_them():
    messages = [SYSTEM, QUESTION, ANSWER, {"role": "system", "content": "be kind"}, *TALK[2:]]
    turned = [SYSTEM, QUESTION, ANSWER, {"role": "user", "content": "be kind\n\nand today?"}, TALK[3]]
    assert chats["mistral"].rows(messages)[0].ids == own("mistral", turned)


def test_a_conversation_that_stays_refused_is_named_by_the_templates_own_words():
    with pytest.raises(InvalidValue, match="Turns must go user, assistant, user, assistant"):
        chats["gemma"].rows([ANSWER, QUESTION, ANSWER])
    with pytest.raises(InvalidValue, match="One tool call at a time"):
        chats["llama3"].rows([QUESTION, {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}])


@pytest.mark.parametrize("name", ["chatml", "gemma", "llama3"])
def test_system_and_assistant_alone_are_a_conversation(name):
    row = chats[name].rows([SYSTEM, ANSWER])[0]
    assert row.ids[-1] == end(name) and tokenizer_for(name).decode(row.ids).count("be brief") == 1


def test_without_an_answer_there_is_nothing_to_train():
    for messages in ([QUESTION], [], [ANSWER]):
        with pytest.raises(InvalidValue, match="no message of the assistant"):
            chats["chatml"].rows(messages)
    with pytest.raises(InvalidValue, match="writes nothing"):
        chats["generation_blocks"].rows([QUESTION, {"role": "assistant", "content": None, "tool_calls": [CALL]}])


@given(st.data())
def test_nothing_but_an_invalid_value_comes_of_any_messages(data):
    name = data.draw(st.sampled_from(list(SHAPES)))
    content = st.one_of(st.none(), texts, st.lists(st.one_of(texts, st.fixed_dictionaries({"text": texts}))))
    role = st.sampled_from(["user", "assistant", "system", "tool", "critic"])
    calls = st.one_of(st.none(), st.lists(st.sampled_from([CALL, {}, {"function": {"arguments": "{"}}]), max_size=2))
    content, calls = (st.one_of(values, st.sampled_from([3, "x", {"a": 1}])) for values in (content, calls))
    message = st.fixed_dictionaries({"role": role, "content": content, "tool_calls": calls})
    messages = data.draw(st.lists(message, max_size=5))
    try:
        rows = chats[name].rows(messages, max_length=data.draw(st.sampled_from([None, 1, 10, 30])))
    except (InvalidValue, GraftuneError):
        return
    assert all(len(row.ids) == len(row.answer) and any(row.answer) for row in rows)


# Tools, parts, roles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"city": "Paris"}, json.dumps({"city": "Paris"})])
@pytest.mark.parametrize("content", [None, ""])
def test_calls_of_tools_need_no_content(content, arguments):
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    messages = [
        QUESTION,
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "content": "<|im_end|> 21 degrees"},
        ANSWER,
    ]
    tokenizer = tokenizer_for("tools")
    (row,) = Chat(ChatTemplate(tokenizer, tools=tools)).rows(messages)
    called = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call><|im_end|>'
    assert tokenizer.decode(trained(row)) == called + "It is 42.<|im_end|>"
    messages[1] = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    assert tokenizer.decode(row.ids) + "\n" == text
    assert row.ids.count(tokenizer.eos_token_id) == text.count("<|im_end|>") - 1


def test_a_call_may_end_by_a_token_of_its_own():
    messages = [QUESTION, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    (row,) = chats["llama3"].rows(messages)
    assert row.ids == own("llama3", messages) and tokenizer_for("llama3").decode(row.ids[-1:]) == "<|eom_id|>"


def test_contents_are_texts_or_lists_of_parts_whatever_the_template_takes():
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in TALK]
    for name in SHAPES:
        assert chats[name].rows(parts) == chats[name].rows(TALK)
    two = [{"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "now?"}]}]
    assert chats["chatml"].prompt(two).ids == own("chatml", [{"role": "user", "content": "What\nnow?"}], ask=True)
    with pytest.raises(InvalidValue, match="'image'"):
        chats["chatml"].prompt([{"role": "user", "content": [{"type": "image", "url": "a.png"}]}])


def test_roles_that_the_template_takes_are_taken():
    messages = [{"role": "critic", "content": "so what"}, ANSWER]
    assert chats["chatml"].rows(messages)[0].ids == own("chatml", messages)[:-1]


# Lengths --------------------------------------------------------------------------------------------------------


@every_template
@given(st.data())
def test_oldest_turns_are_dropped_first_then_the_end_of_the_last_question(name, data):
    messages = data.draw(conversations(name))
    system = [message for message in messages if message["role"] == "system"]
    turns = messages[len(system) : -1]
    reserved = data.draw(st.integers(0, 3))
    sizes = [len(own(name, [*system, *turns[start:]], ask=True)) for start in range(0, len(turns), 2)]
    for start, size in enumerate(sizes):
        if all(size < other for other in sizes[:start]):
            found = chats[name].prompt(messages[:-1], max_length=size + reserved, reserved=reserved)
            assert found.ids == own(name, [*system, *turns[2 * start :]], ask=True)
            assert found.truncated == (start > 0)


@every_template
def test_a_question_is_cut_at_its_end_and_the_answer_kept_whole(name):
    long = {"role": "user", "content": "What is the answer? " * 20}
    whole = chats[name].rows([SYSTEM, long, ANSWER])[0]
    (row,) = chats[name].rows([SYSTEM, *TALK, long, ANSWER], max_length=len(whole.ids) - 30, every_answer=False)
    assert row.truncated and len(row.ids) <= len(whole.ids) - 30
    assert trained(row) == trained(whole)
    text = tokenizer_for(name).decode(row.ids)
    assert "be brief" in text and "today" not in text and "What is the answer? What is" in text


@every_template
def test_an_answer_that_alone_is_too_long_is_cut_without_an_end(name):
    long = {"role": "assistant", "content": "No rain today. " * 40}
    whole = chats[name].rows([QUESTION, long])[0]
    (row,) = chats[name].rows([QUESTION, long], max_length=80)
    assert row.truncated and len(row.ids) == 80 and end(name) not in trained(row)
    assert row.ids == whole.ids[:80] and row.answer == whole.answer[:80]  # the question stays, being short


def test_answers_of_turns_that_were_left_out_get_rows_of_their_own():
    whole = chats["chatml"].rows(TALK)[0]
    rows = chats["chatml"].rows(TALK, max_length=len(whole.ids) - 1)
    assert [tokenizer_for("chatml").decode(trained(row)) for row in rows] == [
        "It is 42.<|im_end|>",
        "No rain.<|im_end|>",
    ]
    assert [row.truncated for row in rows] == [False, True]


def test_a_limit_without_room_for_the_question_is_refused():
    with pytest.raises(NoRoom, match="no room for the user's last message"):
        chats["chatml"].prompt([SYSTEM, QUESTION], max_length=10)


# Masks, ends, references ----------------------------------------------------------------------------------------


@given(st.data())
def test_masks_are_those_of_the_templates_own_blocks(data):
    tokenizer, messages = tokenizer_for("generation_blocks"), data.draw(conversations("generation_blocks"))
    for message in messages:
        if message["role"] == "assistant":  # else one token with the line break before it, which the prompt ends with
            message["content"] = "So " + message["content"]
    wanted = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    (row,) = chats["generation_blocks"].rows(messages)
    assert row.ids == wanted["input_ids"][:-1] and row.answer == [bool(one) for one in wanted["assistant_masks"][:-1]]


def test_what_stands_outside_of_the_templates_blocks_is_not_trained():
    tokenizer = tokenizer_for("generation_blocks", fresh=True)
    block = "{%- generation %}\n            {{- message.content + '<|im_end|>' }}"
    assert block in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(
        block, "{{- 'Well: ' }}{%- generation %}{{- message.content + '<|im_end|>' }}"
    )
    (row,) = Chat(ChatTemplate(tokenizer)).rows(TALK)
    assert tokenizer.decode(trained(row)) == "It is 42.<|im_end|>No rain.<|im_end|>"
    wanted = tokenizer.apply_chat_template(TALK, return_assistant_tokens_mask=True, return_dict=True)
    assert row.answer == [bool(one) for one in wanted["assistant_masks"][:-1]]


def test_the_end_is_trained_where_it_stands_outside_of_the_block():
    tokenizer = tokenizer_for("generation_blocks", fresh=True)
    inside, outside = "{{- message.content + '<|im_end|>' }}", "{{- '\\n' }}"
    assert inside in tokenizer.chat_template and outside in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(inside, "{{- message.content }}").replace(
        outside, "{{- '<|im_end|>\\n' }}"
    )
    (row,) = Chat(ChatTemplate(tokenizer)).rows(TALK)
    assert tokenizer.decode(trained(row)) == "It is 42.<|im_end|>No rain.<|im_end|>"


@every_template
def test_all_tokens_that_end_an_answer_are_known(name):
    tokenizer = tokenizer_for(name)
    assert chats[name].end_ids() == {tokenizer.eos_token_id, end(name)}
    for ends in (7, [7], None):
        found = chats[name].end_ids(SimpleNamespace(eos_token_id=ends))
        assert found == {tokenizer.eos_token_id, end(name)} | ({7} if ends else set())


@every_template
@pytest.mark.parametrize("said", ["It is 42.", "  No rain\ntoday ", "print(add(1, 2))"])
def test_the_reference_is_the_answer_without_what_the_template_adds(name, said):
    messages = [QUESTION, {"role": "assistant", "content": said}]
    assert chats[name].reference(messages) == said.strip()
    assert chats[name].text([*chats[name].answer(messages), *chats[name].answer(messages)]) == said.strip()


# Templates of methods, tokenizers without a chat template -------------------------------------------------------


@every_template
def test_a_methods_template_stands_around_the_last_question(name):
    tokenizer = tokenizer_for(name)
    chat = Chat(chats[name].chat_template, Template("{P:2}\n{tone}: {input}{P:1}"), FIRST)
    worded = Chat(chats[name].chat_template, Template("{tone}: {input}"))
    columns = {"tone": "kindly </s><|im_end|><eos>"}
    ids = chat.prompt(TALK[:3], columns=columns).ids
    assert [token for token in ids if token >= FIRST] == [FIRST, FIRST + 1, FIRST + 2]
    assert "kindly </s><|im_end|><eos>: and today?" in tokenizer.decode(
        ids[ids.index(FIRST + 1) + 1 : ids.index(FIRST + 2)]
    )
    assert controls(name, ids) == controls(name, own(name, TALK[:3], ask=True))
    asked = [*TALK[:2], {"role": "user", "content": "kindly: and today?"}]
    assert worded.prompt(TALK[:3], columns={"tone": "kindly"}).ids == own(name, asked, ask=True)
    for row in chat.rows(TALK, columns=columns):
        assert [token for token in row.ids if token >= FIRST] == [FIRST, FIRST + 1, FIRST + 2]


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(GraftuneError, match="tone"):
        Chat(chats["chatml"].chat_template, Template("{tone}: {input}")).prompt(TALK[:3], columns={"tune": "x"})


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_tokenizer_without_a_chat_template_gets_headings(wrapped):
    tokenizer = tokenizer_for("mistral", fresh=True)
    tokenizer.chat_template = None
    if wrapped:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    first, second = Chat(ChatTemplate(tokenizer)).rows([SYSTEM, *TALK])
    text = "### System:\nbe brief\n\n### User:\nWhat is the answer?\n\n### Assistant:\n"
    prompt, whole = tokenizer(text).input_ids, tokenizer(text + "It is 42.").input_ids
    assert first.ids[: len(prompt)] == prompt and first.ids.count(tokenizer.bos_token_id) == wrapped
    assert tokenizer.decode(first.ids, skip_special_tokens=True) == tokenizer.decode(whole, skip_special_tokens=True)
    assert tokenizer.decode(trained(second)) == "No rain.</s>"


def test_a_template_without_an_end_needs_the_tokenizers():
    tokenizer = tokenizer_for("alpaca", fresh=True)
    tokenizer.eos_token = None
    with pytest.raises(GraftuneError, match="no end-of-text token"):
        Chat(ChatTemplate(tokenizer)).rows(TALK)


def test_of_several_templates_the_default_is_taken_and_with_tools_the_one_for_them():
    tokenizer = tokenizer_for("tools", fresh=True)
    tokenizer.chat_template = {"default": tokenizer_for("chatml").chat_template, "tool_use": tokenizer.chat_template}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    for given_tools in (None, tools):
        wanted = tokenizer.apply_chat_template(
            TALK[:1], tools=given_tools, add_generation_prompt=True, return_dict=False
        )
        assert Chat(ChatTemplate(tokenizer, tools=given_tools)).prompt(TALK[:1]).ids == wanted
    tokenizer.chat_template = {"rag": "x"}
    with pytest.raises(GraftuneError, match="several chat templates"):
        Chat(ChatTemplate(tokenizer)).prompt(TALK[:1])


def test_an_encoder_reads_texts_without_roles():
    assert source_text([QUESTION]) == "What is the answer?"
    assert source_text([SYSTEM, *TALK[:3]]) == "be brief\nWhat is the answer?\nIt is 42.\nand today?"


def test_calls_of_tools_that_the_template_writes_nothing_of_are_bad_rows():
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    talk = ({"role": "user", "content": "hi"},)
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    for name, problem in (("chatml", "has an answer of which the chat template writes nothing"), ("tools", None)):
        bound = Instruct().bind(GPT2Config(), tokenizer_for(name))
        assert bound.problem(Row(talk, answer, 1)) == problem
