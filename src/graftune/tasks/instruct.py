"""Instructions: answers of an assistant, in the form that the base's chat template gives a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import GraftuneError
from graftune.tasks.features import Reading
from graftune.tasks.generate import Generate
from graftune.templates.template import Encoded, Template, special_tokens, tokens

#: For tokenizers without one: a heading for each role.
PLAIN = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
_SLOT = "GRAFTUNE-INPUT-SLOT"
Conversation = tuple[tuple[str, str], ...]


def examples(given: Any, wanted: Any) -> list[tuple[Any, Any]]:
    """An example for every answer of the assistant: the messages before it, and the answer."""
    if isinstance(given, str):
        return [((("user", given),), wanted)]
    return [(given[:place], text) for place, (role, text) in enumerate(given) if role == "assistant" and place]


@dataclass
class Instruct(Generate):
    """Input: an instruction, or a conversation in a column `messages`; target: the assistant's answer.

    Both are rendered by the tokenizer's own chat template, a plain one where it has none; the loss is on answers
    alone. A conversation with several answers makes one example for each. `system` is a first message for all.
    Where it is too long, the oldest messages are left out, then the end of the last question. `context` names a column
    whose text, where there is any, follows the instruction.
    """

    max_new_tokens: int = 128
    system: str = ""
    context: str | None = None

    separator: str = field(default="", init=False)
    pattern: str = field(default="{input}", init=False)

    name: ClassVar[str] = "instruct"
    metric: ClassVar[str] = "rougeL"
    columns: ClassVar[Columns] = Columns(
        ("instruction", "prompt", "question", "query", "input"),
        ("output", "response", "answer", "completion", "target"),
        joint={"messages": values.messages, "conversations": values.messages},
        examples=examples,
    )

    @property
    def instruction(self) -> str:
        return "Answer this."

    def prompt(self, row: Row, reading: Reading, reserved: int = 0) -> Encoded:
        """The rendered conversation, with the method's template around the last question."""
        before = [message for message in self._messages(row) if message[0] == "system"]
        rest = [message for message in self._messages(row) if message[0] != "system"]
        while True:
            whole = Template(self._around(before + rest, reading.template.text, reading.processor))
            last = replace(row, input=rest[-1][1])
            try:
                found = replace(reading, template=whole).fit(last, reserved=reserved, suffix=False)
            except GraftuneError:
                if len(rest) < 3:
                    raise
            else:
                if not found.truncated or len(rest) < 3:
                    return found._replace(truncated=found.truncated or len(rest) < len(row.input))
            rest = rest[2:]  # a question and its answer

    def answer(self, row: Row, tokenizer: Any) -> list[int]:
        """The answer as the chat template writes it, up to the token that ends a text."""
        messages = self._messages(row)
        before = self._render(messages, tokenizer, ask=True)
        whole = self._render([*messages, ("assistant", row.target)], tokenizer, ask=False)
        said = whole[len(before) :] if whole.startswith(before) else row.target
        ids, end = tokens(tokenizer, said), self.end(tokenizer)
        if end in ids:
            return ids[: ids.index(end) + 1]
        return [*tokens(tokenizer, said.rstrip()), end]

    def key(self, row: Row) -> Any:
        return self._messages(row)

    def shown(self, row: Row) -> str:
        return self._messages(row)[-1][1]

    def demonstration(self, row: Row) -> str:
        return f"{self.shown(row)}\n{row.target}\n\n"

    def _messages(self, row: Row) -> Conversation:
        """The messages before the answer."""
        first = (("system", self.system),) if self.system else ()
        *others, (role, text) = row.input
        if self.context and (more := row.columns.get(self.context, "")).strip():
            text = f"{text}\n\n{more}"
        return (*first, *others, (role, text))

    def _around(self, messages: Sequence[tuple[str, str]], inner: str, tokenizer: Any) -> str:
        """A template: the rendered messages as literal words, `inner` in place of the last one's text."""
        rendered = self._render([*messages[:-1], (messages[-1][0], _SLOT)], tokenizer, ask=True)
        opening = "".join(tokenizer.convert_ids_to_tokens(special_tokens(tokenizer)[0]))
        head, _, tail = rendered.removeprefix(opening).partition(_SLOT)  # the template itself adds the opening again
        return Template.literal(head) + inner + Template.literal(tail)

    def _render(self, messages: Sequence[tuple[str, str]], tokenizer: Any, *, ask: bool) -> str:
        named = [{"role": role, "content": text} for role, text in messages]
        own = {} if getattr(tokenizer, "chat_template", None) else {"chat_template": PLAIN}
        rendered: str = tokenizer.apply_chat_template(named, tokenize=False, add_generation_prompt=ask, **own)
        return rendered
