"""Instructions: answers of an assistant, in the form that the base's chat template gives a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.errors import unknown
from graftune.tasks import metrics
from graftune.tasks.batches import IGNORED
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.conversations import examples, is_context, last_question
from graftune.tasks.features import Features, PromptEncoder, TooLong
from graftune.tasks.writing import EXAMPLES_END, BoundWriting, WritingTask
from graftune.templates.chat import Chat
from graftune.templates.chat_template import ChatTemplate
from graftune.templates.messages import Message, answers, source_text, text_of
from graftune.templates.template import Encoded, NoRoom

LOOKED_AT = 1000  # rows that show whether there is a context
CONTEXTS = ("input", "context")
TOOLS = "tools"
CONVERSATIONS = ("messages", "conversations", "conversation")


@dataclass(frozen=True)
class Instruct(WritingTask):
    """Input: an instruction, or a conversation in a column `messages`; target: the assistant's answer.

    Both are rendered by the tokenizer's own chat template, a plain one where it has none; the loss is on answers
    alone, on all of a conversation's. `system` is a first message for all. Where it is too long, the oldest turns are
    left out, then the end of the last question. `context` names a column whose text, where there is any, follows the
    instruction: by default Alpaca's `input`, or `context`, where the data has one beside the instruction; "" turns it
    off. A column `tools` has what the assistant may call, as JSON schemas, which the chat template writes.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    system: str = ""
    context: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "instruct"
    metric: ClassVar[str] = "rougeL"
    chat: ClassVar[bool] = True
    columns: ClassVar[Columns] = Columns(
        ("instruction", "prompt", "question", "query", "input"),
        ("output", "response", "answer", "completion", "target", "chosen"),
        input=values.asked,
        target=values.answered,
        joint=dict.fromkeys(CONVERSATIONS, values.conversation),
        examples=examples,
        prompts=dict.fromkeys(CONVERSATIONS, values.prompt),
        structured=(TOOLS,),
    )

    def __post_init__(self) -> None:
        self.check_lengths()

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.context, TOOLS) if self.context else (TOOLS,)

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
        found = (name for name in CONTEXTS if name in columns and any(is_context(row, name) for row in sample))
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
        return f"{last_question(self.messages(row))}\n{text_of(row.target)}{EXAMPLES_END}"

    def messages(self, row: Row) -> list[Message]:
        """The messages before the answer."""
        messages: list[Message] = list(row.input)
        if self.context and (more := row.columns.get(self.context, "")).strip():
            messages[-1] = {**messages[-1], "content": f"{text_of(messages[-1])}\n\n{more}"}
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages


class BoundInstruct(BoundWriting):
    """Instructions on one base."""

    task: Instruct

    def __init__(self, task: Instruct, config: Any, processor: Any) -> None:
        super().__init__(task, config, processor)
        self.chat_template = ChatTemplate(processor)

    def template_of(self, row: Row) -> ChatTemplate:
        """The chat template with the tools of a row."""
        return self.chat_template.with_tools(row.columns.get(TOOLS, ""))

    def problem(self, row: Row) -> str | None:
        """What the chat template says where it refuses a conversation."""
        if self.is_encoder_decoder:
            return None
        messages = [*self.task.messages(row), *([] if row.target is None else [row.target])]
        try:
            template = self.template_of(row)
            accepted, _ = template.accepted(messages)
            for place in answers(accepted):
                if not text_of(accepted[place]).strip():  # calls of tools, of which a template may write nothing
                    template.split(accepted[:place], accepted[place])
        except values.InvalidValue as error:
            return str(error)
        return None

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """What the chat template does not take as it is."""
        if self.is_encoder_decoder:
            return []
        said = (self.template_of(row).accepted([*self.task.messages(row), row.target])[1] for row in rows[:LOOKED_AT])
        return list(dict.fromkeys(remark for remarks in said for remark in remarks))

    @property
    def ends(self) -> set[int]:
        return super().ends if self.is_encoder_decoder else Chat(self.chat_template).end_ids() or super().ends

    def prompt(self, row: Row, encoder: PromptEncoder, reserved: int = 0) -> Encoded:
        """The rendered conversation, with the method's template around the last question.

        An encoder reads the texts of all messages, without roles.
        """
        messages = self.task.messages(row)
        if self.is_encoder_decoder:
            return encoder.fit(replace(row, input=source_text(messages)))
        try:
            found = self._chat(row, encoder).prompt(
                messages, max_length=encoder.max_length, reserved=reserved, columns=row.columns
            )
        except NoRoom as error:
            raise _too_long(row, encoder) from error
        return Encoded(found.ids, found.truncated, {})

    def answer(self, row: Row) -> list[int]:
        """The answer as the chat template writes it, up to the token that ends it."""
        if self.is_encoder_decoder:
            return self.target(text_of(row.target))
        return Chat(self.template_of(row)).answer([*self.task.messages(row), row.target])

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """The conversation, with labels on all answers; several rows where one cannot hold them all as written."""
        if self.is_encoder_decoder:
            pairs = []
            for asked in self.questions([row]):
                prompt = self.prompt(asked, encoder)
                pairs.append(self.joined(prompt, self.answer(asked), encoder))
            return pairs
        messages = [*self.task.messages(row), row.target]
        try:
            rows = self._chat(row, encoder).rows(messages, max_length=encoder.max_length, columns=row.columns)
        except NoRoom as error:
            raise _too_long(row, encoder) from error
        return [
            Features(
                own.ids, [i if said else IGNORED for i, said in zip(own.ids, own.answer, strict=True)], own.truncated
            )
            for own in rows
        ]

    def questions(self, rows: Sequence[Row]) -> list[Row]:
        """A row for every answer of a conversation: the messages before it, and the answer."""
        found = []
        for row in rows:
            found += [replace(row, input=row.input[:place], target=row.input[place]) for place in answers(row.input)]
            found.append(row)
        return found

    def decode(self, outputs: Any, batch: Batch) -> list[str]:
        """The text of each answer, without what the template itself adds to one."""
        if self.is_encoder_decoder:
            return super().decode(outputs, batch)
        ends = set(batch["ends"])
        chat = Chat(self.chat_template)
        texts = []
        for ids in outputs.tolist():
            stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            texts.append(chat.text(ids[:stop]))
        return texts

    def references(self, row: Row) -> list[str]:
        """The answers as the template renders them, so that generated text is compared with what was trained."""
        targets = row.references or (row.target,)
        if self.is_encoder_decoder or any(target is None for target in targets):
            return ["-" if target is None else text_of(target) for target in targets]
        chat, messages = Chat(self.template_of(row)), self.task.messages(row)
        return [chat.reference([*messages, target]) for target in targets]

    def group_key(self, row: Row) -> Any:
        return json.dumps(self.task.messages(row), sort_keys=True, default=str)

    def display(self, row: Row) -> str:
        return last_question(self.task.messages(row))

    def dummy_target(self, row: Row) -> Any:
        return {"role": "assistant", "content": "-"}

    def _chat(self, row: Row, encoder: PromptEncoder) -> Chat:
        return Chat(self.template_of(row), encoder.template, encoder.first_virtual_id)


def _too_long(row: Row, encoder: PromptEncoder) -> TooLong:
    return TooLong(
        f"line {row.line}: the sequence is too long",
        received="a conversation of which no token of the last question fits",
        expected=f"at most {encoder.max_length} tokens, at least one of them the question's",
        do="raise the maximum length, shorten the template, or delete the row",
    )
