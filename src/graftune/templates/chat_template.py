"""A tokenizer's chat template: what it makes of a conversation as text, found out by trying it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError
from graftune.templates.chat_form import OTHER, PROBE, Form
from graftune.templates.control import ControlTokens, common
from graftune.templates.messages import REPAIRS, Message, checked, fold_system, question, role_of, text_of, thoughts
from graftune.templates.template import special_tokens

#: For tokenizers without one: a heading for each role.
PLAIN = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] %}{{ call | tojson }}{% endfor %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
FOLDED = "the chat template has no system role: the system message stands at the beginning of the user's message"
_SILENT = "has an answer of which the chat template writes nothing"
# What foreign code says to values that it was not written for.
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

#: What is written around the text of the user's last message.
Frame = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """The chat template of a tokenizer, with tools and values of its own variables (such as `enable_thinking`).

    All texts that it gives are marked (see `control`).
    """

    tokenizer: Any
    tools: Sequence[Mapping[str, Any]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def source(self) -> str:
        """The template itself. Raises GraftuneError for several templates of which none is the default."""
        if not getattr(self.tokenizer, "chat_template", None):
            return PLAIN
        try:
            return str(self.tokenizer.get_chat_template(tools=self.tools))
        except ValueError as error:
            raise GraftuneError(
                "the tokenizer has several chat templates",
                received=", ".join(self.tokenizer.chat_template),
                expected="one of them called 'default'",
                do="set tokenizer.chat_template to one of them",
            ) from error

    @cached_property
    def control(self) -> ControlTokens:
        """The control tokens that texts may spell."""
        return ControlTokens(self.tokenizer, self.source)

    @cached_property
    def opening(self) -> list[int]:
        """The tokens that stand before all text: those of the tokenizer where it has no chat template to write them."""
        return special_tokens(self.tokenizer)[0] if self.source is PLAIN else []

    @cached_property
    def form(self) -> Form:
        """How the template takes messages."""
        return Form(self._apply)

    def accepted(self, messages: Sequence[Message]) -> tuple[list[Message], tuple[str, ...]]:
        """The conversation as the template takes it, and what had to be changed, in words for the user.

        Raises InvalidValue, with the template's own words, for one that it refuses however changed.
        """
        given = checked(messages)
        remarks: tuple[str, ...] = ()
        if any(role_of(message) == "system" for message in given) and self.form.folds_system:
            given, remarks = fold_system(given, keep_first=True), (FOLDED,)
        refusal: InvalidValue | None = None
        for count in range(len(REPAIRS) + 1):
            for chosen in combinations(REPAIRS, count):
                changed = given
                for remark in chosen:
                    changed = REPAIRS[remark](changed)
                if count and changed == given:
                    continue
                try:
                    self.render(changed, ask=role_of(changed[-1]) != "assistant")
                except InvalidValue as error:
                    refusal = refusal or error
                else:
                    return changed, remarks + chosen
        raise refusal or InvalidValue("has no messages")

    def render(self, messages: Sequence[Message], *, ask: bool = False, frame: Frame | None = None) -> str:
        """The conversation as text; `ask` adds what the assistant's answer begins with.

        Raises InvalidValue, with the template's own words, where it refuses.
        """
        return self._apply(self._prepared(messages, frame), ask)

    def split(self, before: Sequence[Message], answer: Message, frame: Frame | None = None) -> tuple[str, str]:
        """What is generated from, and what is to be generated: the answer up to and with the token that ends it.

        Both together are what the template gives for the whole conversation, up to that end. Where it writes the
        whole otherwise than it asks for an answer, the prompt counts, since generation starts from there; what
        follows is the answer without its thoughts where the template then agrees, else its text as the whole has
        it, behind the thoughts that the prompt has opened (closed at once where there are none). A template that
        ends an answer by no control token gets the end-of-text token.
        """
        prompt = self.render(before, ask=True, frame=frame)
        whole = self.render([*before, answer], frame=frame)
        said = self._said(prompt, whole, before, answer, frame)
        end = self._end(said)
        if not end[0].removeprefix(self.lead).strip():
            raise InvalidValue(_SILENT)
        return prompt, "".join(end)

    def answer_spans(self, messages: Sequence[Message], frame: Frame | None = None) -> list[tuple[int, int]] | None:
        """Where the assistant's own text stands in the rendered conversation, by the template's own blocks.

        None for a template without `{% generation %}`.
        """
        if not re.search(r"\{%[-+]?\s*generation\b", self.source):
            return None
        _, (spans,) = render_jinja_template(
            conversations=[self._prepared(messages, frame)],
            tools=self._tools,
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **self.options},
        )
        return list(spans)

    @cached_property
    def tail(self) -> str:
        """What it writes behind the text of a last answer."""
        return self._around_answer[1]

    @cached_property
    def lead(self) -> str:
        """What it writes between the prompt and the text of an answer, such as an empty `<think></think>`."""
        return self._around_answer[0]

    @cached_property
    def _around_answer(self) -> tuple[str, str]:
        before: list[Message] = [{"role": "user", "content": OTHER}]
        answer = {"role": "assistant", "content": PROBE}
        for asked in (before, [{"role": "system", "content": OTHER}, *before]):
            try:
                prompt, whole = self.render(asked, ask=True), self.render([*asked, answer])
                lead, _, tail = self._said(prompt, whole, asked, answer, None).partition(PROBE)
            except InvalidValue:
                continue
            return lead, tail
        return "", ""

    # Rendering ------------------------------------------------------------------------------------------------------

    @cached_property
    def _tools(self) -> Any:
        return self.control.mark(self.tools)

    def _apply(self, messages: Sequence[Message], ask: bool) -> str:
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                list(messages),
                tools=self._tools,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=ask,
                **self.options,
            )
        except _REFUSALS as error:
            raise InvalidValue(f"is a conversation that the chat template refuses: {error}") from error
        return rendered

    def _prepared(self, messages: Sequence[Message], frame: Frame | None) -> list[Message]:
        """Messages in the form that the template takes, their texts marked, the last question in its frame."""
        taken = [self.control.mark(m, assistant=role_of(m) == "assistant") for m in self.form.taken(messages)]
        place = question(taken) if frame else None
        if frame is None or place is None:
            return taken
        asked = taken[place]
        [taken[place]] = self.form.taken([{**asked, "content": frame(text_of(asked))}])
        return taken

    # The answer -----------------------------------------------------------------------------------------------------

    def _said(self, prompt: str, whole: str, before: Sequence[Message], answer: Message, frame: Frame | None) -> str:
        """What follows the prompt (see `split`), with all that the template writes behind the answer."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        opened = re.search(r"<(\w+)>\s*\Z", prompt)
        tag = opened or re.search(r"</(\w+)>", prompt[common(prompt, whole) :])
        own = ""
        if tag:
            own, plain = thoughts(answer, tag[1])
            without = self.render([*before, plain], frame=frame)
            if without.startswith(prompt):
                return without[len(prompt) :]
        probed = self.render([*before, {"role": "assistant", "content": PROBE}], frame=frame)
        head, found, _ = probed.rpartition(PROBE)
        if not found:
            raise InvalidValue(_SILENT)
        body = whole[common(head, whole) :]
        if opened is None or head.rstrip().endswith(f"<{opened[1]}>"):  # nothing that the whole does not open as well
            gap = head[len(head.rstrip()) :]
            return body if prompt.endswith(gap) else gap + body
        body = body.lstrip().removeprefix(f"<{opened[1]}>").lstrip("\n")
        if f"</{opened[1]}>" in body:
            return body
        own = self.control.mark(own.strip("\n"), assistant=True)
        return f"{own}\n</{opened[1]}>\n\n{body}"

    def _end(self, said: str) -> tuple[str, str]:
        """The answer, and the token that ends it."""
        text, tail = said, ""
        if self.tail and said.endswith(self.tail):
            text, tail = said[: -len(self.tail)], self.tail
        if found := self.control.pattern.search(tail):
            return text, tail[: found.end()]
        if not tail and (last := self.control.last(said)) and not said[last.end() :].strip():
            return said[: last.start()], last.group()
        if self.tokenizer.eos_token is None:
            raise GraftuneError(
                "the tokenizer has no end-of-text token, and its chat template ends no answer",
                received=f"eos_token=None in {type(self.tokenizer).__name__}",
                expected="a token that ends an answer",
                do='set tokenizer.eos_token, for example "</s>"',
            )
        return (text if tail else text.rstrip()), str(self.tokenizer.eos_token)
