"""A tokenizer's chat template as it renders conversations, in texts that are marked (see `control`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError
from graftune.templates.chat_form import OTHER, PROBE, Form
from graftune.templates.control import ControlTokens
from graftune.templates.control_tokens import unreadable
from graftune.templates.messages import Message, question, role_of, text_of
from graftune.templates.template import special_tokens

#: For tokenizers without one: a heading for each role.
PLAIN = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] %}{{ call | tojson }}{% endfor %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
# What foreign code says to values that it was not written for.
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

_TIME = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")
_TAGS = re.compile(r"</?\w+>")

#: What is written around the text of the user's last message.
Frame = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Rendering:
    """The chat template of a tokenizer, with tools and values of its own variables (such as `enable_thinking`)."""

    tokenizer: Any
    tools: Sequence[Mapping[str, Any]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    #: What a template that writes the time is told: it must not pass between a prompt and its answer.
    now: datetime = field(default_factory=datetime.now)

    @cached_property
    def source(self) -> str:
        """The template itself, the time written out. Raises GraftuneError for several without a default."""
        if not getattr(self.tokenizer, "chat_template", None):
            return PLAIN
        try:
            source = str(self.tokenizer.get_chat_template(tools=self.tools))
        except ValueError as error:
            raise GraftuneError(
                "the tokenizer has several chat templates",
                received=", ".join(self.tokenizer.chat_template),
                expected="one of them called 'default'",
                do="set tokenizer.chat_template to one of them",
            ) from error
        return _TIME.sub(lambda call: json.dumps(self.now.strftime(call[2])), source)

    @cached_property
    def control(self) -> ControlTokens:
        """The control tokens that texts may spell."""
        return ControlTokens(self.tokenizer, self.source, self._framing)

    @cached_property
    def opening(self) -> list[int]:
        """The tokens that stand before all text: those of the tokenizer where it has no chat template to write them."""
        return special_tokens(self.tokenizer)[0] if self.source is PLAIN else []

    @cached_property
    def form(self) -> Form:
        """How the template takes messages."""
        return Form(self._apply, self.control.chosen.lexed)

    def render(self, messages: Sequence[Message], *, ask: bool = False, frame: Frame | None = None) -> str:
        """The conversation as text; `ask` adds what the assistant's answer begins with.

        Raises InvalidValue, with the template's own words, where it refuses.
        """
        return self._apply(self._prepared(messages, frame), ask)

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

    def check(self) -> None:
        """Raise GraftuneError for a template that no answer can be learned with."""
        if self._fault:
            raise GraftuneError(
                "the chat template is not one to train with",
                received=self._fault,
                expected="one that gives a conversation as one text, in which an answer follows what it is asked by",
                do="set tokenizer.chat_template to the template of the model, as its authors give it",
            )

    @cached_property
    def _fault(self) -> str:
        """What is wrong with the template, as two made-up messages show it; nothing where it refuses these."""
        asked, answer = {"role": "user", "content": OTHER}, {"role": "assistant", "content": PROBE}
        try:
            prompt, whole = self.render([asked], ask=True), self.render([asked, answer])
            if (prompt, whole) != (self.render([asked], ask=True), self.render([asked, answer])):
                return "one that gives another text each time"
        except InvalidValue:
            return ""
        ahead, _, behind = whole.partition(PROBE)
        between = ["".join(_TAGS.sub("", text.rpartition(OTHER)[2]).split()) for text in (prompt, ahead)]
        if OTHER in prompt and OTHER in behind and OTHER not in ahead:
            return "one that writes an answer before what it is asked by"
        if (
            OTHER in prompt
            and OTHER in ahead
            and not (between[0].startswith(between[1]) or between[1].startswith(between[0]))
        ):
            return f"one that writes {between[0]!r} before an answer to be given, {between[1]!r} before a given one"
        return ""

    # Rendering ------------------------------------------------------------------------------------------------------

    @cached_property
    def _tools(self) -> Any:
        return self.control.mark(self.tools)

    def _framing(self) -> str:
        """A plain conversation as the template writes it; nothing where it refuses all that are tried."""
        talk = [{"role": role, "content": OTHER} for role in ("user", "assistant", "user", "assistant")]
        for messages in ([{"role": "system", "content": OTHER}, *talk], talk):
            try:
                return self._apply(messages, ask=False) + self._apply(messages[:-1], ask=True)
            except InvalidValue:
                continue
        return ""

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
        except jinja2.TemplateSyntaxError as error:
            raise unreadable(error) from error
        except _REFUSALS as error:
            raise InvalidValue(f"is a conversation that the chat template refuses: {error}") from error
        return rendered

    def _prepared(self, messages: Sequence[Message], frame: Frame | None) -> list[Message]:
        """Messages in the form that the template takes, their texts marked, the last question in its frame."""
        guard = self.source is not PLAIN and self.form.changes_texts
        taken = [
            self.control.mark(m, assistant=role_of(m) == "assistant", guard=guard) for m in self.form.taken(messages)
        ]
        place = question(taken) if frame else None
        if frame is None or place is None:
            return taken
        asked = taken[place]
        [taken[place]] = self.form.taken([{**asked, "content": frame(text_of(asked, self.form.between_parts))}])
        return taken
