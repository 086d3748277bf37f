"""Instructions: answers of an assistant, in the form that the base's chat template gives a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import unknown
from graftune.tasks import metrics
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import PromptEncoder, TooLong
from graftune.tasks.writing import EXAMPLES_END, BoundWriting, WritingTask
from graftune.templates.template import Encoded, Template, special_tokens, tokens

#: For tokenizers without one: a heading for each role.
PLAIN = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
LOOKED_AT = 1000  # rows that show whether there is a context
CONTEXTS = ("input", "context")
_SLOT = "GRAFTUNE-INPUT-SLOT"
Conversation = tuple[tuple[str, str], ...]


def examples(given: Any, wanted: Any) -> list[tuple[Any, Any]]:
    """An example for every answer of the assistant: the messages before it, and the answer."""
    if isinstance(given, str):
        return [((("user", given),), wanted)]
    return [(given[:place], text) for place, (role, text) in enumerate(given) if role == "assistant" and place]


def _is_context(row: Row, name: str) -> bool:
    """Whether a column has text that is not the instruction itself."""
    text = row.columns.get(name, "").strip()
    return bool(text) and text != row.input[-1][1].strip()


@dataclass(frozen=True)
class Instruct(WritingTask):
    """Input: an instruction, or a conversation in a column `messages`; target: the assistant's answer.

    Both are rendered by the tokenizer's own chat template, a plain one where it has none; the loss is on answers
    alone. A conversation with several answers makes one example for each. `system` is a first message for all.
    Where it is too long, the oldest messages are left out, then the end of the last question. `context` names a column
    whose text, where there is any, follows the instruction: by default Alpaca's `input`, or `context`, where the data
    has one beside the instruction; "" turns it off.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    system: str = ""
    context: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "instruct"
    metric: ClassVar[str] = "rougeL"
    columns: ClassVar[Columns] = Columns(
        ("instruction", "prompt", "question", "query", "input"),
        ("output", "response", "answer", "completion", "target"),
        joint={"messages": values.messages, "conversations": values.messages},
        examples=examples,
    )

    def __post_init__(self) -> None:
        self.check_lengths()

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.context,) if self.context else ()

    def fit(self, rows: Sequence[Row]) -> Self:
        """`context`: a usual column with text of its own. Raises GraftuneError for a named one that is not there."""
        if self.context == "":
            return self
        sample = rows[:LOOKED_AT]
        columns = {name for row in sample for name in row.columns}
        if self.context is not None:
            if columns and self.context not in columns:
                raise unknown("column", self.context, columns)
            return self
        found = (name for name in CONTEXTS if name in columns and any(_is_context(row, name) for row in sample))
        return replace(self, context=next(found, ""))

    @property
    def instruction(self) -> str:
        return "Answer this."

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundInstruct(self, config, processor)

    def scores(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> metrics.Scores:
        """BLEU, chrF and ROUGE-L, which ranks."""
        return metrics.rouge_first(metrics.generation(texts, references), texts, references)

    def demonstration(self, row: Row) -> str:
        return f"{self.messages(row)[-1][1]}\n{row.target}{EXAMPLES_END}"

    def messages(self, row: Row) -> Conversation:
        """The messages before the answer."""
        first = (("system", self.system),) if self.system else ()
        *others, (role, text) = row.input
        if self.context and (more := row.columns.get(self.context, "")).strip():
            text = f"{text}\n\n{more}"
        return (*first, *others, (role, text))


class BoundInstruct(BoundWriting):
    """Instructions on one base."""

    task: Instruct

    def prompt(self, row: Row, encoder: PromptEncoder, reserved: int = 0) -> Encoded:
        """The rendered conversation, with the method's template around the last question."""
        messages = self.task.messages(row)
        before = [message for message in messages if message[0] == "system"]
        rest = [message for message in messages if message[0] != "system"]
        turns = len(rest)
        while True:
            whole = Template(self._around(before + rest, encoder.template.text))
            last = replace(row, input=rest[-1][1])
            try:
                found = replace(encoder, template=whole).fit(last, reserved=reserved, suffix=False)
            except TooLong:
                if len(rest) < 3:
                    raise
            else:
                if not found.truncated or len(rest) < 3:
                    return found._replace(truncated=found.truncated or len(rest) < turns)
            rest = rest[2:]  # a question and its answer

    def answer(self, row: Row) -> list[int]:
        """The answer as the chat template writes it, up to the token that ends a text."""
        messages = self.task.messages(row)
        before = self._render(messages, ask=True)
        whole = self._render([*messages, ("assistant", row.target)], ask=False)
        said = whole[len(before) :] if whole.startswith(before) else row.target
        ids = tokens(self.processor, said)
        if self.end in ids:
            return ids[: ids.index(self.end) + 1]
        return [*tokens(self.processor, said.rstrip()), self.end]

    def group_key(self, row: Row) -> Any:
        return self.task.messages(row)

    def display(self, row: Row) -> str:
        return self.task.messages(row)[-1][1]

    def _around(self, messages: Sequence[tuple[str, str]], inner: str) -> str:
        """A template: the rendered messages as literal words, `inner` in place of the last one's text."""
        rendered = self._render([*messages[:-1], (messages[-1][0], _SLOT)], ask=True)
        opening = "".join(self.processor.convert_ids_to_tokens(special_tokens(self.processor)[0]))
        head, _, tail = rendered.removeprefix(opening).partition(_SLOT)  # the template itself adds the opening again
        return Template.literal(head) + inner + Template.literal(tail)

    def _render(self, messages: Sequence[tuple[str, str]], *, ask: bool) -> str:
        named = [{"role": role, "content": text} for role, text in messages]
        own = {} if getattr(self.processor, "chat_template", None) else {"chat_template": PLAIN}
        rendered: str = self.processor.apply_chat_template(named, tokenize=False, add_generation_prompt=ask, **own)
        return rendered
