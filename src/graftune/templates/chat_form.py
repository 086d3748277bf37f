"""Form: how a chat template takes messages, found out by trying it on conversations that are made up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from graftune.datasets.values import InvalidValue
from graftune.templates.chat_source import Lexed, makes_texts
from graftune.templates.messages import Message, fold_system, parsed_arguments, role_of, text_of

#: Two texts that no template changes and nobody writes.
PROBE, OTHER = "Xq7probe", "Xq8other"


@dataclass(frozen=True, eq=False)
class Form:
    """What a template does; `apply` renders messages as they are, with or without the beginning of an answer.

    `lexed` are the template's tokens: line, kind and text.
    """

    apply: Callable[[Sequence[Message], bool], str]
    lexed: Lexed

    def taken(self, messages: Sequence[Message]) -> list[Message]:
        """Messages in the form that the template takes.

        Where it knows no system role, the system message opens the user's. Keys without a value are left out, as
        transformers does.
        """
        if any(role_of(message) == "system" for message in messages) and self.folds_system:
            messages = fold_system(messages)
        if any(message.get("tool_calls") for message in messages) and self.escapes_arguments:
            messages = parsed_arguments(messages)
        return [self._content(message) for message in messages]

    @cached_property
    def folds_system(self) -> bool:
        """Whether it refuses a system message, or leaves it out."""
        asked = {"role": "user", "content": OTHER}
        shown = self._shown([{"role": "system", "content": PROBE}, asked])
        return PROBE not in shown and OTHER in self._shown([asked])

    @cached_property
    def joins_answers(self) -> bool:
        """Whether it refuses two answers in a row."""
        asked, answer = {"role": "user", "content": OTHER}, {"role": "assistant", "content": PROBE}
        return not self._shown([asked, answer, answer], ask=False) and bool(self._shown([asked, answer], ask=False))

    @cached_property
    def escapes_arguments(self) -> bool:
        """Whether it writes arguments of a tool call that are JSON already as a string of JSON."""
        function = {"name": OTHER, "arguments": f'{{"{PROBE}": 1}}'}
        calls = [{"id": "a12345678", "type": "function", "function": function}]
        asked = {"role": "user", "content": OTHER}
        return f'\\"{PROBE}' in self._shown(
            [asked, {"role": "assistant", "content": "", "tool_calls": calls}], ask=False
        )

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it reads a content that is a list of parts (and does not merely print the list)."""
        shown = self._parts
        return PROBE in shown and OTHER in shown and not re.search(r"['\"]type['\"]", shown)

    @cached_property
    def between_parts(self) -> str:
        """What it writes between two parts that are texts; a line break where it takes none."""
        behind = self._parts.partition(PROBE)[2] if self.takes_parts else ""
        return behind.partition(OTHER)[0] if OTHER in behind else "\n"

    @cached_property
    def takes_text(self) -> bool:
        """Whether it reads a content that is a text."""
        return not self.takes_parts or PROBE in self._raw([{"role": "user", "content": PROBE}])

    @cached_property
    def changes_texts(self) -> bool:
        """Whether it may make other texts of those that it is given: by a filter, a method, a slice, or by joining."""
        if makes_texts(self.lexed):
            return True
        first, second = {"role": "user", "content": PROBE}, {"role": "user", "content": OTHER}
        pairs = ([first, second], [{**first, "role": "system"}, second], [first, {**second, "role": "assistant"}])
        return any(PROBE + OTHER in shown for shown in (self._parts, *map(self._raw, pairs)))

    @cached_property
    def _parts(self) -> str:
        """What it makes of a content that is a list of two texts."""
        parts = [{"type": "text", "text": text} for text in (PROBE, OTHER)]
        return self._raw([{"role": "user", "content": parts}])

    def _content(self, message: Message) -> Message:
        own = {key: value for key, value in message.items() if value is not None}
        content = own.get("content")
        if isinstance(content, str) and not self.takes_text:
            own["content"] = [{"type": "text", "text": content}]
        elif content is not None and not isinstance(content, str) and not self.takes_parts:
            own["content"] = text_of(own)
        return own

    def _shown(self, messages: Sequence[Message], *, ask: bool = True) -> str:
        return self._raw([self._content(message) for message in messages], ask=ask)

    def _raw(self, messages: Sequence[Message], *, ask: bool = True) -> str:
        """What the template gives; nothing where it refuses."""
        try:
            return self.apply(messages, ask)
        except InvalidValue:
            return ""
