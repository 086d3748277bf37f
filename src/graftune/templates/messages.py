"""Messages of a conversation, and what can be done to those that a chat template does not take as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from graftune.datasets.values import InvalidValue

#: "role" and "content"; some have "tool_calls", "name" or "reasoning_content" as well.
Message = Mapping[str, Any]
THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def text_of(message: Message, between: str = "\n") -> str:
    """The text of a message; `between` stands between the parts of a list, no content is no text.

    Raises InvalidValue for a part that is no text.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple):
        raise InvalidValue(f"has a message whose content is a {type(content).__name__}, not text")
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise InvalidValue(f"has a message with a part of type {kind!r}, which is no text")
        texts.append(text)
    return between.join(texts)


def role_of(message: Message) -> str:
    """The role. Raises InvalidValue where there is none."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidValue("has a message without a role")
    return str(message["role"])


def checked(messages: Sequence[Message]) -> list[Message]:
    """The messages. Raises InvalidValue for one without a role, with a content or calls of tools of another kind."""
    for message in messages:
        role_of(message)
        text_of(message)
        if not isinstance(calls := message.get("tool_calls"), list | tuple | None):
            raise InvalidValue(f"has a message whose tool_calls are a {type(calls).__name__}, not a list")
    return list(messages)


def answers(messages: Sequence[Message]) -> list[int]:
    """The places of the assistant's messages that something stands before, but for those with OpenAI's `weight` 0."""
    said = [place for place, message in enumerate(messages) if place and role_of(message) == "assistant"]
    return [place for place in said if messages[place].get("weight", 1) != 0]


def question(messages: Sequence[Message]) -> int | None:
    """The place of the user's last message; where there is none, of the last message that is not the assistant's."""
    roles = [role_of(message) for message in messages]
    for wanted in (lambda role: role == "user", lambda role: role != "assistant"):
        if places := [place for place, role in enumerate(roles) if wanted(role)]:
            return places[-1]
    return None


def without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Without the user's oldest message and all up to the next one; system messages that open the conversation stay.

    None where there is only one turn.
    """
    opening = leading_system(messages)
    starts = [place for place in range(opening + 1, len(messages)) if role_of(messages[place]) == "user"]
    return [*messages[:opening], *messages[starts[0] :]] if starts else None


def leading_system(messages: Sequence[Message]) -> int:
    """How many system messages open the conversation."""
    return next((place for place, message in enumerate(messages) if role_of(message) != "system"), len(messages))


def fold_system(messages: Sequence[Message], *, keep_first: bool = False) -> list[Message]:
    """System messages as the beginning of the user's next one; `keep_first` leaves those that open the conversation."""
    opening = leading_system(messages) if keep_first else 0
    found: list[Message] = list(messages[:opening])
    waiting: list[str] = []
    for message in messages[opening:]:
        role = role_of(message)
        if role == "system":
            waiting.append(text_of(message))
            continue
        if waiting and role == "user":
            message = {**message, "content": _led(waiting, message.get("content") or "")}
        elif waiting:
            found.append({"role": "user", "content": "\n\n".join(waiting)})
        waiting = []
        found.append(message)
    return [*found, {"role": "user", "content": "\n\n".join(waiting)}] if waiting else found


def _led(texts: Sequence[str], content: Any) -> Any:
    """Texts before a message's own content, with blank lines between."""
    if isinstance(content, str):
        return "\n\n".join([*texts, content])
    return [{"type": "text", "text": "\n\n".join([*texts, ""])}, *content]


def join_turns(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role as one message, with a blank line between; results of tools stay apart."""
    found: list[Message] = []
    for role, group in groupby(messages, key=role_of):
        own = list(group)
        if len(own) == 1 or role not in ("system", "user", "assistant"):
            found.extend(own)
            continue
        joined = {key: value for message in own for key, value in message.items()}
        texts = [text_of(message) for message in own]
        joined["content"] = "\n\n".join(text for text in texts if text)
        if calls := [call for message in own for call in message.get("tool_calls") or ()]:
            joined["tool_calls"] = calls
        found.append(joined)
    return found


def empty_contents(messages: Sequence[Message]) -> list[Message]:
    """No content, as beside calls of tools, becomes an empty one."""
    return [message if message.get("content") is not None else {**message, "content": ""} for message in messages]


def parsed_arguments(messages: Sequence[Message]) -> list[Message]:
    """Arguments of tool calls that are written as JSON, as OpenAI's interface has them, become what they say."""
    return [
        {**message, "tool_calls": [_parsed(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _parsed(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call  # no JSON: whatever it is, the template is to write it as it stands
    return {**call, "function": {**function, "arguments": arguments}}


def first_system_only(messages: Sequence[Message]) -> list[Message]:
    """Later system messages as the beginning of the user's next one."""
    return fold_system(messages, keep_first=True)


#: What is tried, in this order, on a conversation that a template refuses; and how a user is told.
REPAIRS: Mapping[str, Callable[[Sequence[Message]], list[Message]]] = {
    "messages without content are taken for empty ones": empty_contents,
    "arguments of tool calls that are written as JSON are taken for what they say": parsed_arguments,
    "later system messages stand at the beginning of the user's next message": first_system_only,
    "messages of one role in a row are joined by a blank line": join_turns,
}


def source_text(messages: Sequence[Message]) -> str:
    """What an encoder reads of a conversation: the texts of all messages, a line each, without roles."""
    return "\n".join(text for message in messages if (text := text_of(message)))


def thoughts(message: Message, tag: str) -> tuple[str, Message]:
    """The thoughts of an answer, and the answer without: of a key of their own, or of `<tag>…</tag>` in its text."""
    rest = {key: value for key, value in message.items() if key not in THOUGHTS}
    own = next((value for key in THOUGHTS if isinstance(value := message.get(key), str)), "")
    before, closed, after = text_of(message).partition(f"</{tag}>")
    if not closed:
        return own, rest
    return own or before.partition(f"<{tag}>")[2] or before, {**rest, "content": after.lstrip("\n")}
