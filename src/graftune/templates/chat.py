"""Chat: a conversation as token ids, to train on and to generate from.

What is trained is what the tokenizer's chat template gives for the whole conversation, and what is generated from is
its prefix, token by token (`ChatTemplate.split` has the rule for templates that do not keep to this themselves).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graftune.datasets.values import InvalidValue
from graftune.errors import unknown
from graftune.templates.chat_length import beside, fitted
from graftune.templates.chat_template import ChatTemplate
from graftune.templates.control import VIRTUAL, common
from graftune.templates.messages import Message, answers, role_of
from graftune.templates.segments import Column, Virtual, Words
from graftune.templates.template import Template

_NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Prompt:
    """What the model reads before it writes; whether something was left out, and what was changed (for the user)."""

    ids: list[int]
    truncated: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """A conversation as token ids. `answer` is true on what the assistant writes, the token that ends it included."""

    ids: list[int]
    answer: list[bool]
    truncated: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Turn:
    """An answer behind the messages before it, as text: what is generated from, and what is to be generated."""

    before: Sequence[Message]
    answer: Message
    prompt: str
    said: str


@dataclass(frozen=True, eq=False)
class Chat:
    """How conversations are read: by a chat template, with a method's template around the user's last message.

    `first_virtual_id` is the id of the template's first virtual token. Where a method takes `columns`, they are the
    values of the columns other than `{input}` that the method's template names.
    """

    chat_template: ChatTemplate
    template: Template = field(default_factory=Template)
    first_virtual_id: int = 0

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        max_length: int | None = None,
        reserved: int = 0,
        columns: Mapping[str, str] = _NONE,
    ) -> Prompt:
        """What an answer to the conversation is generated from, within `max_length - reserved` tokens.

        Where it is too long, the oldest turns are left out, then the end of the user's last message.

        Raises InvalidValue for a conversation that the template refuses, NoRoom where no token of the user's last
        message fits.
        """
        accepted, remarks = self.chat_template.accepted(messages)
        while accepted and self.chat_template.form.joins_answers and role_of(accepted[-1]) == "assistant":
            accepted.pop()  # the answer that is asked for would be joined with this one
        limit = None if max_length is None else max_length - reserved
        kept, truncated = fitted(accepted, limit, *self._measure(columns))
        return Prompt(self._prompt_ids(kept, columns), truncated, remarks)

    def answer(self, messages: Sequence[Message], *, columns: Mapping[str, str] = _NONE) -> list[int]:
        """What follows the prompt where the last message is the answer, up to and with the token that ends it."""
        accepted, _ = self.chat_template.accepted(messages)
        return self._encode(self._turn(accepted[:-1], accepted[-1], columns))[1]

    def rows(
        self,
        messages: Sequence[Message],
        *,
        max_length: int | None = None,
        every_answer: bool = True,
        columns: Mapping[str, str] = _NONE,
    ) -> list[Rendered]:
        """The rows to train on, so that every answer (or the last one) is trained once, in the order of the last ones.

        A row trains all the answers that it has as they would be generated; the others (of a template that drops
        earlier thoughts, of turns that were left out) get rows of their own. Where a row is too long, the oldest
        turns are left out, then the end of the user's last message; an answer that is too long even so is cut at
        its end, which is then not marked as one, and the question keeps up to half of the room.

        Raises as `prompt`, and InvalidValue for a conversation without an answer.
        """
        if not (places := answers(messages)):
            raise InvalidValue("has no message of the assistant")
        accepted, remarks = self.chat_template.accepted(messages[: places[-1] + 1])
        waiting = answers(accepted) if every_answer else [len(accepted) - 1]
        turns = {place: self._turn(accepted[:place], accepted[place], columns) for place in waiting}
        rows: list[Rendered] = []
        while waiting:
            turn, dropped, truncated = self._kept(turns[waiting.pop()], max_length, columns)
            first, rest = self._encode(turn)
            ids = [*first, *rest][:max_length]
            answer = [*([False] * len(first)), *self._written(turn, rest, columns)][:max_length]
            for place in [place for place in waiting if place - dropped > 0]:
                earlier = turns[place]
                if dropped:
                    earlier = self._turn(turn.before[: place - dropped], earlier.answer, columns)
                if ends := self._within(earlier, turn, ids):
                    answer[slice(*ends)] = self._written(earlier, ids[slice(*ends)], columns)
                    waiting.remove(place)
            rows.append(Rendered(ids, answer, truncated, remarks))
        return rows[::-1]

    def end_ids(self, generation_config: Any = None) -> set[int]:
        """All tokens that end an answer: the tokenizer's, the generation config's, the one that the template writes."""
        tokenizer = self.chat_template.tokenizer
        own = getattr(generation_config, "eos_token_id", None)
        found = {tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])} - {None}
        if written := self.chat_template.control.pattern.search(self.chat_template.tail):
            found.add(tokenizer.convert_tokens_to_ids(written.group()))
        return {int(one) for one in found}

    def text(self, ids: Sequence[int], generation_config: Any = None) -> str:
        """The text of an answer: without special tokens and what follows an end, without what the template adds."""
        tokenizer, ends = self.chat_template.tokenizer, self.end_ids(generation_config)
        end = next((place for place, one in enumerate(ids) if one in ends), len(ids))
        said = str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).strip()
        lead = self.chat_template.control.encode(self.chat_template.lead)
        return said.removeprefix(str(tokenizer.decode(lead, skip_special_tokens=True)).strip()).strip()

    def reference(self, messages: Sequence[Message], *, columns: Mapping[str, str] = _NONE) -> str:
        """The text of the last message, as `text` gives it for a generated answer of the same tokens."""
        return self.text(self.answer(messages, columns=columns))

    def _kept(self, turn: _Turn, max_length: int | None, columns: Mapping[str, str]) -> tuple[_Turn, int, bool]:
        """What is kept of a turn within the length, how many messages were left out, and whether anything was."""
        first, rest = self._encode(turn)
        if max_length is None or len(first) + len(rest) <= max_length:
            return turn, 0, False
        kept = beside(turn.before, len(rest), max_length, *self._measure(columns))
        return self._turn(kept, turn.answer, columns), len(turn.before) - len(kept), True

    def _turn(self, before: Sequence[Message], answer: Message, columns: Mapping[str, str]) -> _Turn:
        frame = lambda text: self._framed(text, columns)
        return _Turn(before, answer, *self.chat_template.split(before, answer, frame))

    def _encode(self, turn: _Turn) -> tuple[list[int], list[int]]:
        """Prompt and answer. Where the whole's tokens do not begin with the prompt's, each is tokenised by itself."""
        first, whole = self._ids(turn.prompt), self._ids(turn.prompt + turn.said)
        if whole[: len(first)] == first:
            return first, whole[len(first) :]
        return first, self.chat_template.control.encode(turn.said, continued=True)

    def _within(self, earlier: _Turn, turn: _Turn, ids: Sequence[int]) -> tuple[int, int] | None:
        """From where to where a row has an earlier answer just as it would be generated; None where it does not."""
        if not (turn.prompt + turn.said).startswith(earlier.prompt + earlier.said):
            return None
        first, rest = self._encode(earlier)
        end = len(first) + len(rest)
        return (len(first), end) if ids[:end] == first + rest else None

    def _written(self, turn: _Turn, rest: Sequence[int], columns: Mapping[str, str]) -> list[bool]:
        """Which tokens of the answer the assistant writes: by the template's own blocks where it has them, else all.

        The token that ends it is always among them, since it has to be learned.
        """
        messages, frame = [*turn.before, turn.answer], lambda text: self._framed(text, columns)
        spans = self.chat_template.answer_spans(messages, frame)
        if spans is None or not self.chat_template.render(messages, frame=frame).startswith(turn.prompt + turn.said):
            return [True] * len(rest)
        written = [False] * len(rest)
        for start, end in spans:
            low, high = max(start - len(turn.prompt), 0), min(end - len(turn.prompt), len(turn.said))
            if low < high:
                before, until = (self._encode(replace(turn, said=turn.said[:place]))[1] for place in (low, high))
                count = common(until, rest)
                for place in range(common(before, rest), count + (count < len(until))):  # or a token that only begins
                    written[place] = True
        return [*written[:-1], True]

    def _measure(self, columns: Mapping[str, str]) -> tuple[Any, Any]:
        return lambda messages: len(self._prompt_ids(messages, columns)), self.chat_template.tokenizer

    def _prompt_ids(self, messages: Sequence[Message], columns: Mapping[str, str]) -> list[int]:
        return self._ids(self.chat_template.render(messages, ask=True, frame=lambda text: self._framed(text, columns)))

    def _ids(self, text: str) -> list[int]:
        return self.chat_template.opening + self.chat_template.control.encode(text, self.first_virtual_id)

    def _framed(self, text: str, columns: Mapping[str, str]) -> str:
        """The method's template around a marked text."""
        mark, framed = self.chat_template.control.mark, ""
        for segment in self.template.until_mask().segments:
            if isinstance(segment, Words):
                framed += segment.text
            elif isinstance(segment, Virtual):
                framed += VIRTUAL * segment.count
            elif isinstance(segment, Column):
                if segment.name != "input" and segment.name not in columns:
                    raise unknown("template column", segment.name, {*columns, "input"})
                framed += text if segment.name == "input" else mark(columns[segment.name])
        return framed
