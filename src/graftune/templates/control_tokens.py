"""Which added tokens are control tokens under a chat template, and which of them an assistant writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2

from graftune.errors import GraftuneError

NAMED = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")


@dataclass(frozen=True, eq=False)
class ChosenTokens:
    """The special tokens, and the added tokens that the template itself writes (DeepSeek's `<｜User｜>` is not called
    special), but no white space, and of the latter no plain words.

    `framing` gives what the template makes of a plain conversation: the tokens around its turns.
    """

    tokenizer: Any
    source: str
    framing: Callable[[], str] = str

    @cached_property
    def lexed(self) -> list[tuple[int, str, str]]:
        """The template's tokens: line, kind and text. Raises GraftuneError for one that is no Jinja."""
        try:
            return list(jinja2.Environment().lex(self.source))
        except jinja2.TemplateSyntaxError as error:
            raise unreadable(error) from error

    @cached_property
    def _written(self) -> str:
        """All that the template writes by itself."""
        return "\0".join(text for _, kind, text in self.lexed if kind in ("data", "string"))

    @cached_property
    def all(self) -> dict[str, Any]:
        """All of them, by their texts."""
        added = {token.content: token for token in self.tokenizer.added_tokens_decoder.values()}
        return {
            text: token
            for text, token in added.items()
            if len(text) > 1
            and not text.isspace()
            and (token.special or (text in self._written and not text.isalnum()))
        }

    @cached_property
    def own(self) -> set[str]:
        """What the assistant may write: pairs like `<think>` and `</think>`, special ones where no turn has them."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values()}

        def in_pair(text: str) -> bool:
            bracket, name = text[0], text[1:].removeprefix("/")
            return {bracket + name, f"{bracket}/{name}"} <= added

        return {text for text, token in self.all.items() if in_pair(text) and (not token.special or text in self._free)}

    @cached_property
    def opening(self) -> re.Pattern[str]:
        """A special token that the template writes beside turns, such as `<|python_tag|>`: it may open an answer."""
        return any_of(text for text in self._free if text in self._written)

    @cached_property
    def _free(self) -> set[str]:
        """Special tokens that frame no turn, and that the tokenizer gives no other meaning."""
        named = {getattr(self.tokenizer, f"{name}_token", None) for name in NAMED}
        framing = self.framing()
        return {text for text, token in self.all.items() if token.special and text not in framing and text not in named}


def unreadable(error: jinja2.TemplateSyntaxError) -> GraftuneError:
    """The error for a template that is no Jinja."""
    return GraftuneError(
        "the chat template cannot be read",
        received=f"line {error.lineno}: {error.message}",
        expected="a Jinja template",
        do="correct the tokenizer's chat template",
    )


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of the texts, the longer before the shorter."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
