"""Control tokens: a text that merely spells one, such as `<|im_end|>` in a question, is read as the text it is.

A chat template writes control tokens and texts into one string. So texts are marked before they are rendered: what
spells a control token stands between `OPEN` and `CLOSE`. The marks pass through the template with the text, whatever
it trims or moves, and `encode` takes them out again. Where a template does more (`lower`, `replace`, two texts without
anything between), which can make a control token of a text that spells none, a `GUARD` follows every letter that is
one of a control token's signs instead. Without marks, ids are exactly the tokenizer's own; a guard that has kept
nothing apart changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graftune.templates.control_tokens import ChosenTokens, any_of
from graftune.templates.template import tokens

# Letters of Linear A, which nobody writes: `strip` and `repr` leave them as they are. A text that does have one is
# marked there like one that spells a control token.
OPEN, CLOSE, VIRTUAL, GUARD = "\U00010600", "\U00010601", "\U00010602", "\U00010603"

_GUARDS = re.compile(f"(?<!{OPEN}){GUARD}")  # a text's own stands between marks
_TAG = re.compile(r"</?[\w-]+>")


@dataclass(frozen=True, eq=False)
class ControlTokens:
    """The control tokens of a tokenizer under a chat template, in texts."""

    tokenizer: Any
    source: str
    framing: Callable[[], str] = str
    """Gives what the template makes of a plain conversation: the tokens around its turns."""

    @cached_property
    def chosen(self) -> ChosenTokens:
        """Which tokens these are."""
        return ChosenTokens(self.tokenizer, self.source, self.framing)

    @property
    def _tokens(self) -> Mapping[str, Any]:
        return self.chosen.all

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any control token, the longer before the shorter."""
        return any_of(self._tokens)

    @cached_property
    def _text(self) -> re.Pattern[str]:
        return any_of([*self._tokens, OPEN, CLOSE, VIRTUAL, GUARD])

    @cached_property
    def _assistants_text(self) -> re.Pattern[str]:
        return any_of([*self._tokens.keys() - self.chosen.own, OPEN, CLOSE, VIRTUAL, GUARD])

    @cached_property
    def _signs(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """What control tokens are spelled with, in others' texts and in the assistant's.

        Tags that the template itself looks for, and in the assistant's text those that it writes, stay whole.
        """
        strings = {text[1:-1] for _, kind, text in self.chosen.lexed if kind == "string"}
        tags = {text for text in strings if _TAG.fullmatch(text)} - self._tokens.keys()
        signs = any_of({letter for text in self._tokens for letter in text if not letter.isalnum()}).pattern
        others, assistants = (f"(?P<tag>{any_of(whole).pattern})|{signs}" for whole in (tags, tags | self.chosen.own))
        return re.compile(others), re.compile(assistants)

    @cached_property
    def _pieces(self) -> re.Pattern[str]:
        return re.compile(
            f"{OPEN}(?P<spelled>{self._text.pattern}){CLOSE}|(?P<control>{self.pattern.pattern})"
            f"|(?P<stray>[{OPEN}{CLOSE}{GUARD}])|(?P<virtual>{VIRTUAL})"
        )

    def mark(self, value: Any, *, assistant: bool = False, guard: bool = False) -> Any:
        """A text, or all texts of lists and dicts, with marks around what spells a control token, or with guards."""
        if isinstance(value, str) and guard and not any(mark in value for mark in (OPEN, CLOSE, VIRTUAL, GUARD)):
            return self._signs[assistant].sub(lambda match: match.group() + GUARD * (match["tag"] is None), value)
        if isinstance(value, str):
            if assistant and (opening := self.chosen.opening.match(value)):
                return opening.group() + self.mark(value[opening.end() :], assistant=True)
            pattern = self._assistants_text if assistant else self._text
            return pattern.sub(lambda match: OPEN + match.group() + CLOSE, value)
        if isinstance(value, Mapping):
            return {key: self.mark(item, assistant=assistant, guard=guard) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item, assistant=assistant, guard=guard) for item in value]
        return value

    def unguarded(self, text: str) -> str:
        """A marked text without its guards, where they have kept no control token apart; else as it is."""
        if GUARD not in text:
            return text
        plain = _GUARDS.sub("", text)
        without, kept = ([match["control"] for match in self._controls(one)] for one in (plain, text))
        return plain if without == kept else text

    def _controls(self, text: str) -> list[re.Match[str]]:
        return [match for match in self._pieces.finditer(text) if match["control"]]

    def last(self, text: str) -> re.Match[str] | None:
        """The last control token that is the template's alone to write."""
        return next(
            (match for match in reversed(self._controls(text)) if match["control"] not in self.chosen.own), None
        )

    def encode(self, text: str, first_virtual_id: int = 0, *, continued: bool = False) -> list[int]:
        """The ids of a marked text; `continued` says that other text stands before it.

        A run of text between two control tokens in which something is marked is tokenised without any added token;
        everything else as the tokenizer does by itself. Every `VIRTUAL` is the next virtual token.
        """
        ids: list[int] = []
        before = "text" if continued else ""
        for kind, run in self._runs(self.unguarded(text)):
            if kind == "virtual":
                ids.append(first_virtual_id)
                first_virtual_id += 1
            elif kind == "text":
                starts = self.pattern.match(run)
                ids += self._continue(run) if before == "text" and not starts else tokens(self.tokenizer, run)
            else:
                glued = before == "text" and not self._restarts
                ids += self._plain(run, continued=glued)
            before = "" if kind == "virtual" else "text"
        return ids

    def _runs(self, text: str) -> Iterator[tuple[str, str]]:
        """What is tokenised together: ("text", …), ("spelled", …) where something is marked, or ("virtual", "")."""
        done, run, spelled, strips = "", "", False, False  # `done` ends with a control token, `run` follows it
        place = 0

        def flush() -> Iterator[tuple[str, str]]:
            if spelled:
                if done:
                    yield "text", done
                yield "spelled", run.lstrip() if strips else run
            elif done + run:
                yield "text", done + run

        for match in self._pieces.finditer(text):
            run += text[place : match.start()]
            place = match.end()
            if match["virtual"]:
                yield from flush()
                yield "virtual", ""
                done, run, spelled, strips = "", "", False, False
            elif control := match["control"]:
                token = self._tokens[control]
                if spelled:
                    run = run.rstrip() if token.lstrip else run
                    yield from flush()
                    done, spelled = control, False
                else:
                    done += run + control
                run, strips = "", token.rstrip
            else:
                run += match["spelled"] or ""
                spelled = True
        run += text[place:]
        yield from flush()

    @cached_property
    def _restarts(self) -> bool:
        """Whether text behind a control token is tokenised like text at the start."""
        control = next(iter(self._tokens), "")
        return bool(control) and tokens(self.tokenizer, control + "a")[1:] == tokens(self.tokenizer, "a")

    @cached_property
    def _ids(self) -> set[int]:
        return {self.tokenizer.convert_tokens_to_ids(text) for text in self._tokens}

    def _plain(self, text: str, *, continued: bool) -> list[int]:
        """The ids of text without any control token, whatever it spells."""
        encode = self._continue if continued else self._alone
        ids = encode(text, split_special_tokens=True)
        if self._ids.isdisjoint(ids) or not self.pattern.search(text):
            return ids
        # A token that is not called special, or that is a piece of text in the vocabulary too: its first letter apart.
        ids = []
        for piece in self.pattern.sub(lambda match: match[0][0] + OPEN + match[0][1:], text).split(OPEN):
            ids += self._plain(piece, continued=continued)
            continued = True
        return ids

    def _alone(self, text: str, **options: Any) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False, **options).input_ids)

    def _continue(self, text: str, **options: Any) -> list[int]:
        """The ids of text that follows other text: without the space that some tokenizers put before a first word."""
        for other in ("\n", "a", "."):
            both, alone = self._alone(other + text, **options), self._alone(other, **options)
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return self._alone(text, **options)


def common(some: Sequence[object], others: Sequence[object]) -> int:
    """How many letters or ids both begin with."""
    pairs = zip(some, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))
