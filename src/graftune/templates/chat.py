"""Chat: a conversation as token ids, to train on and to generate from.

What is trained is what the tokenizer's chat template gives for the whole conversation, and what is generated from is
its prefix, token by token (`ChatTemplate.split` has the rule for templates that do not keep to this themselves).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graftune.datasets.values import InvalidValue
from graftune.errors import unknown
from graftune.templates.chat_template import ChatTemplate
from graftune.templates.control import VIRTUAL
from graftune.templates.messages import Message, answers, question, role_of, text_of, without_oldest_turn
from graftune.templates.segments import Column, Virtual, Words
from graftune.templates.template import NoRoom, Template

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


class _Pair(NamedTuple):
    prompt: list[int]
    said: list[int]
    written: list[bool]  # per token of `said`: whether the assistant writes it


@dataclass(frozen=True, eq=False)
class Chat:
    """How conversations are read: by a chat template, with a method's template around the user's last message.

    `first_virtual_id` is the id of the template's first virtual token. `columns` of the methods are the values of
    other columns than `{input}` that the method's template names.
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
        while accepted and self.chat_template.joins_answers and role_of(accepted[-1]) == "assistant":
            accepted.pop()  # the answer that is asked for would be joined with this one
        limit = None if max_length is None else max_length - reserved
        kept, truncated = self._fit(accepted, limit, columns)
        return Prompt(self._prompt_ids(kept, columns), truncated, remarks)

    def answer(self, messages: Sequence[Message], *, columns: Mapping[str, str] = _NONE) -> list[int]:
        """What follows the prompt where the last message is the answer, up to and with the token that ends it."""
        accepted, _ = self.chat_template.accepted(messages)
        return self._pair(accepted[:-1], accepted[-1], columns).said

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
        turns are left out, then the end of the user's last message, and where that is not enough the answer's end,
        which is then not marked as one; the question keeps up to half of the room.

        Raises as `prompt`, and InvalidValue for a conversation without an answer.
        """
        if not (places := answers(messages)):
            raise InvalidValue("has no message of the assistant")
        accepted, remarks = self.chat_template.accepted(messages[: places[-1] + 1])
        waiting = answers(accepted) if every_answer else [len(accepted) - 1]
        rows: list[Rendered] = []
        while waiting:
            row, trained = self._row(accepted[: waiting[-1] + 1], set(waiting), max_length, columns, remarks)
            rows.append(row)
            waiting = [place for place in waiting if place not in trained]
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

    def _row(
        self,
        messages: Sequence[Message],
        wanted: set[int],
        max_length: int | None,
        columns: Mapping[str, str],
        remarks: tuple[str, ...],
    ) -> tuple[Rendered, set[int]]:
        """The row of the last message, and the places of all answers that it trains."""
        *before, last = messages
        kept: list[Message] = list(before)
        pair, truncated = self._pair(kept, last, columns), False
        if max_length is not None and len(pair.prompt) + len(pair.said) > max_length:
            kept, truncated = self._beside(before, len(pair.said), max_length, columns), True
            pair = self._pair(kept, last, columns)
        ids = [*pair.prompt, *pair.said][:max_length]
        written = [*([False] * len(pair.prompt)), *pair.written][:max_length]
        trained = {len(before)}
        for place in answers(kept):
            original = place + len(before) - len(kept)
            if original not in wanted:
                continue
            earlier = self._pair(kept[:place], kept[place], columns)
            start, end = len(earlier.prompt), len(earlier.prompt) + len(earlier.said)
            if ids[:end] == earlier.prompt + earlier.said:
                written[start:end] = earlier.written
                trained.add(original)
        return Rendered(ids, written, truncated, remarks), trained

    def _pair(self, before: Sequence[Message], answer: Message, columns: Mapping[str, str]) -> _Pair:
        """Prompt and answer. Where the whole's tokens do not begin with the prompt's, each is tokenised by itself."""
        frame = lambda text: self._framed(text, columns)
        prompt, said = self.chat_template.split(before, answer, frame)
        first, whole = self._ids(prompt), self._ids(prompt + said)
        if whole[: len(first)] == first:
            rest = whole[len(first) :]
        else:
            rest = self.chat_template.control.encode(said, continued=True)
        written = [True] * len(rest)
        spans = self.chat_template.answer_spans([*before, answer], frame)
        if spans is not None and self.chat_template.render([*before, answer], frame=frame).startswith(prompt + said):
            written = self._in_spans(prompt + said, first + rest, spans)[len(first) :]
            written[-1] = True  # the end has to be learned, whether the template's block holds it or not
        return _Pair(first, rest, written)

    def _in_spans(self, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[bool]:
        """Which tokens stand in spans of the text, whole or in part."""
        inside = [False] * len(ids)
        for start, end in spans:
            if start >= len(text) or start == end:
                continue
            until = self._ids(text[:end])
            first, last = _common(self._ids(text[:start]), ids), _common(until, ids)
            last += last < len(until)  # a token that only begins in the span
            inside[first:last] = [True] * (min(last, len(ids)) - first)
        return inside

    def _fit(
        self, messages: Sequence[Message], limit: int | None, columns: Mapping[str, str]
    ) -> tuple[list[Message], bool]:
        """The messages of a prompt of at most `limit` tokens, and whether anything had to be left out."""
        kept, cut = list(messages), False
        while limit is not None and len(self._prompt_ids(kept, columns)) > limit:
            shorter = without_oldest_turn(kept)
            if shorter is None:
                return self._shortened(kept, limit, columns), True
            kept, cut = shorter, True
        return kept, cut

    def _beside(
        self, before: Sequence[Message], answer: int, max_length: int, columns: Mapping[str, str]
    ) -> list[Message]:
        """The messages of a prompt beside an answer of so many tokens; beside a part of it, where the whole cannot."""
        try:
            return self._fit(before, max_length - answer, columns)[0]
        except NoRoom:
            pass
        try:
            return self._fit(before, max_length // 2, columns)[0]
        except NoRoom:
            return self._fit(before, max_length - 1, columns)[0]

    def _shortened(self, messages: Sequence[Message], limit: int, columns: Mapping[str, str]) -> list[Message]:
        """With the end of the user's last message cut, after one of its tokens."""
        place = question(messages)
        text = "" if place is None else text_of(messages[place])

        def shorter(end: int) -> list[Message]:
            return [{**m, "content": text[:end]} if i == place else m for i, m in enumerate(messages)]

        ends = self._token_ends(text)
        size = lambda end: len(self._prompt_ids(shorter(end), columns))
        count = bisect_right(ends, limit, key=size)
        while count and size(ends[count - 1]) > limit:
            count -= 1  # sizes do not grow quite evenly where a cut changes how the rest is tokenised
        if not count:
            raise NoRoom(
                "the conversation leaves no room for the user's last message",
                received=f"a limit of {limit} tokens; the system message and the template alone take as many",
                expected="at least one token of the user's last message within the limit",
                do="raise the maximum length, or shorten the system message",
            )
        return shorter(ends[count - 1])

    def _token_ends(self, text: str) -> list[int]:
        tokenizer = self.chat_template.tokenizer
        if not tokenizer.is_fast:
            return list(range(1, len(text) + 1))
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return sorted({end for _, end in found["offset_mapping"] if end})

    def _prompt_ids(self, messages: Sequence[Message], columns: Mapping[str, str]) -> list[int]:
        return self._ids(self.chat_template.render(messages, ask=True, frame=lambda text: self._framed(text, columns)))

    def _ids(self, text: str) -> list[int]:
        return self.chat_template.control.encode(text, self.first_virtual_id)

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


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(some, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))
