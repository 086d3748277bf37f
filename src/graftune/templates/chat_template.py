"""A tokenizer's chat template: what it makes of a conversation as text, found out by trying it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from graftune.datasets import values
from graftune.datasets.values import InvalidValue
from graftune.errors import GraftuneError
from graftune.templates.chat_form import OTHER, PROBE
from graftune.templates.chat_rendering import PLAIN, Frame, Rendering
from graftune.templates.control import common
from graftune.templates.messages import REPAIRS, Message, checked, fold_system, role_of, thoughts

KEPT = 256  # templates with tools
FOLDED = "the chat template has no system role: the system message stands at the beginning of the user's message"
UNSAID = "the tokenizer has no chat template: each message stands below a heading such as '### User:'"
_SILENT = "has an answer of which the chat template writes nothing"


@dataclass(frozen=True, eq=False)
class ChatTemplate(Rendering):
    """What is generated from, and what is to be generated, by a tokenizer's chat template."""

    def with_tools(self, tools: str) -> ChatTemplate:
        """The same with tools, as JSON. Raises InvalidValue where they are no list of objects."""
        if not tools.strip():
            return self
        if tools not in self._with_tools:
            if len(self._with_tools) >= KEPT:
                self._with_tools.clear()
            self._with_tools[tools] = replace(self, tools=values.tools(tools) or None)
        return self._with_tools[tools]

    @cached_property
    def _with_tools(self) -> dict[str, ChatTemplate]:
        return {}

    def accepted(self, messages: Sequence[Message]) -> tuple[list[Message], tuple[str, ...]]:
        """The conversation as the template takes it, and what had to be changed, in words for the user.

        Raises InvalidValue, with the template's own words, for one that it refuses however changed.
        """
        self.check()
        given = checked(messages)
        remarks = (UNSAID,) if self.source is PLAIN else ()
        if any(role_of(message) == "system" for message in given) and self.form.folds_system:
            given, remarks = fold_system(given, keep_first=True), (*remarks, FOLDED)
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
