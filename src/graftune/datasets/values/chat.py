"""Conversations: messages with roles, as chat templates take them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from graftune.datasets.values.scalars import InvalidValue, is_list, parsed, plain, short, text

#: What data sets call the four roles, in lower case.
ROLES: Final[dict[str, str]] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
}


def conversation(value: Any, folder: Path) -> tuple[dict[str, Any], ...]:
    """The messages of a conversation as chat templates take them.

    Each has "role" (system, user, assistant or tool) and "content" (text, or None beside tool calls), and where the
    data have them "tool_calls", "name", "tool_call_id", "reasoning_content" and "weight" (0: not to be learned, as
    OpenAI has it). Other spellings of the roles, `from`/`value` for `role`/`content` and lists of text parts are read
    as well.
    """
    found = tuple(_message(one, number) for number, one in enumerate(_listed(value), 1))
    roles = [one["role"] for one in found]
    if "assistant" not in roles:
        raise InvalidValue("has no message of the assistant, so that there is nothing to learn")
    if set(roles[: roles.index("assistant")]) <= {"system"}:
        raise InvalidValue("has no message before the assistant's first, so that there is nothing to answer")
    if all(one.get("weight", 1) == 0 for one in found if one["role"] == "assistant"):
        raise InvalidValue("has the weight 0 on every message of the assistant, so that there is nothing to learn")
    return found


def prompt(value: Any, folder: Path) -> tuple[dict[str, Any], ...]:
    """The messages to answer, as `conversation` has them: all of a conversation but an answer that ends it."""
    found = tuple(_message(one, number) for number, one in enumerate(_listed(value), 1))
    if found and found[-1]["role"] == "assistant":
        found = found[:-1]
    if not found or found[-1]["role"] not in ("user", "tool"):
        raise InvalidValue("does not end on a message that can be answered")
    return found


def asked(value: Any, folder: Path) -> Any:
    """An instruction as text, or the messages to answer."""
    return prompt(value, folder) if is_list(value) else text(value, folder)


def answered(value: Any, folder: Path) -> Any:
    """An answer as text, or the messages that follow the question, of which at least one is the assistant's."""
    if not is_list(value):
        return text(value, folder)
    found = tuple(_message(one, number) for number, one in enumerate(_listed(value), 1))
    if "assistant" not in [one["role"] for one in found]:
        raise InvalidValue("has no message of the assistant, so that there is nothing to learn")
    return found


def tools(value: str) -> list[Mapping[str, Any]]:
    """What an assistant may call, as JSON schemas. Raises InvalidValue where the text is no JSON list of objects."""
    found = parsed(value)
    if not is_list(found) or not all(isinstance(one, Mapping) for one in found):
        raise InvalidValue(f"'tools' is not a list of objects ({short(found)})")
    return list(found)


def _listed(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        value = parsed(value)
    if not is_list(value) or not all(isinstance(one, Mapping) for one in value):
        raise InvalidValue("is not a list of messages")
    return list(value)


def _role_name(message: Mapping[str, Any]) -> Any:
    return message.get("role", message.get("from"))


def _content(message: Mapping[str, Any]) -> Any:
    return message.get("content", message.get("value"))


def _message(one: Mapping[str, Any], number: int) -> dict[str, Any]:
    spelled = _role_name(one)
    role = _role(spelled, number)
    calls = _tool_calls(one.get("tool_calls"), number)
    content = _content(one)
    if isinstance(spelled, str) and spelled.strip().lower() == "function_call":
        content, calls = None, _tool_calls(_function_call(content, number), number)
    thoughts = one.get("reasoning_content")
    found: dict[str, Any] = {"role": role, "content": _text(content, number)}
    if calls:
        found["tool_calls"] = calls
    if thoughts is not None:
        found["reasoning_content"] = _text(thoughts, number)
    for key in ("name", "tool_call_id"):
        if one.get(key) is not None:
            found[key] = plain(one[key]) if isinstance(one[key], str | int | float) else _wrong(number, key, one[key])
    if one.get("weight") is not None:
        found["weight"] = _weight(one["weight"], number)
    if found["content"] is None and not calls:
        raise InvalidValue(f"has no content in message {number} ({role})")
    if role in ("user", "assistant") and not calls and not found["content"].strip():
        raise InvalidValue(f"has an empty message {number} ({role})")
    return found


def _weight(value: Any, number: int) -> int:
    if isinstance(value, str | list | dict) or value not in (0, 1):
        raise InvalidValue(f"has the weight {short(value)} in message {number}; 0 and 1 are known")
    return int(value)


def _role(spelled: Any, number: int) -> str:
    if spelled is None:
        raise InvalidValue(f"has no role in message {number}")
    name = str(spelled).strip().lower() if isinstance(spelled, str) else ""
    if name in ROLES:
        return ROLES[name]
    near = difflib.get_close_matches(name, ROLES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "known are system, user, assistant and tool"
    raise InvalidValue(f"has an unknown role {short(spelled)} in message {number}; {hint}")


def _text(content: Any, number: int) -> str | None:
    """Text, a number written out, or parts that are all text, joined."""
    if content is None:
        return None
    if isinstance(content, str | int | float):
        return plain(content)
    if not is_list(content):
        return _wrong(number, "content", content)
    return "".join(_part(part, number) for part in content)


def _part(part: Any, number: int) -> str:
    if isinstance(part, str):
        return plain(part)
    if not isinstance(part, Mapping):
        return _wrong(number, "content", part)
    kind = part.get("type", "text")
    if kind != "text":
        raise InvalidValue(f"has a part of type {short(kind)} in message {number}; only text is supported")
    written = part.get("text")
    return plain(written) if isinstance(written, str) else _wrong(number, "text", written)


def _tool_calls(value: Any, number: int) -> list[dict[str, Any]]:
    """The calls as they are: whether a template takes their arguments as text, it shows itself."""
    if value is None:
        return []
    if isinstance(value, str):
        value = parsed(value)
    if not is_list(value) or not all(isinstance(call, Mapping) for call in value):
        _wrong(number, "tool_calls", value)
    return [dict(call) for call in value]


def _function_call(content: Any, number: int) -> list[dict[str, Any]]:
    """ShareGPT's message `function_call`: the call, or a list of calls, as JSON."""
    called = parsed(content) if isinstance(content, str) else content
    calls = called if is_list(called) else [called]
    if not calls or not all(isinstance(call, Mapping) and "name" in call for call in calls):
        _wrong(number, "function call", content)
    return [{"type": "function", "function": dict(call)} for call in calls]


def _wrong(number: int, what: str, value: Any) -> Any:
    raise InvalidValue(f"has a {what} in message {number} that is not supported ({short(value)})")
