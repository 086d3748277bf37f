"""Tokens of texts. What a user writes in a template may spell special tokens and mean them; data never does.

A special token that is meant stands in a text as a mark that no data can spell (`marked`). Texts are read by a twin of
the tokenizer's Rust backend in which special tokens are called by their marks; all else is the tokenizer's own, which
is not touched. Tokenizers without such a backend are called.
"""

from __future__ import annotations

import json
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, proxy

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

_SECRET = secrets.token_hex(16)
_MARK = re.compile(rf"{_SECRET}i([0-9]+)x")
_KEPT = 1000  # template words whose marked form is remembered


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without special tokens; what spells a special token in it is read as plain text."""
    return reader(tokenizer).ids([text])[0]


def tokens(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text without those that the tokenizer adds; what spells a special token in it becomes that token."""
    found = reader(tokenizer)
    return found.ids([found.marked(text)])[0]


def whole(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs, which JSON can hold and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@contextmanager
def untouched(tokenizer: Any) -> Iterator[None]:
    """Keep what the tokenizer's backend says of truncation and padding, which every call of the tokenizer changes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    truncation, padding, split = backend.truncation, backend.padding, backend.encode_special_tokens
    try:
        yield
    finally:
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)
        backend.encode_special_tokens = split


class Reader(ABC):
    """How a tokenizer reads texts. `marks` has the mark of each special token."""

    def __init__(self, marks: Mapping[str, str]) -> None:
        self.marks = marks
        longest_first = sorted(marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._marked: dict[str, str] = {}

    def marked(self, words: str) -> str:
        """The same words, with each special token that they spell marked as meant."""
        if words not in self._marked:
            if len(self._marked) == _KEPT:
                self._marked.clear()
            self._marked[words] = self._pattern.sub(lambda match: self.marks[match.group()], words)
        return self._marked[words]

    def ids(self, texts: Sequence[str], *, target: bool = False) -> list[list[int]]:
        """The ids of texts, each of marked words and of data; `target`: as a decoder's."""
        texts = [whole(text) for text in texts]
        wanted = [text for text in texts if text]
        found = iter(self.encode(wanted, target)) if wanted else iter(())
        return [next(found) if text else [] for text in texts]

    @abstractmethod
    def encode(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        """The ids of texts of at least one character."""

    @abstractmethod
    def decoded(self, ids: Sequence[int]) -> str:
        """The text that ids stand for."""

    @cached_property
    def space(self) -> str | None:
        """What makes a word alone read as within a sentence: a space before it, nothing; None if neither does."""
        words = ("a", "b", "a", "cd")
        for space in (" ", ""):
            together, *alone = self.ids([" ".join(words), words[0], *(space + word for word in words[1:])])
            if together == [index for ids in alone for index in ids]:
                return space
        return None

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """The first and last character (exclusive) of each of the text's tokens; None where that is not known."""
        return None


class Twin(Reader):
    """By a copy of the backend."""

    def __init__(self, content: dict[str, Any], special: Iterable[str], *, split: bool) -> None:
        marks = {t["content"]: _mark(t["id"]) for t in content["added_tokens"] if t["content"] in special}
        super().__init__({} if split else marks)
        self._backend = Tokenizer.from_str(json.dumps(_renamed(content, marks)))

    def encode(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        if len(texts) == 1:
            return [self._backend.encode(texts[0], add_special_tokens=False).ids]
        return [found.ids for found in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._backend.encode(text, add_special_tokens=False).offsets if text else []
        return offsets

    def decoded(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))


class Called(Reader):
    """By calls of the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = proxy(tokenizer)
        names = list(getattr(tokenizer, "all_special_tokens", []))
        ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
        super().__init__({name: _mark(index) for name, index in ids.items()})
        # The token for what is unknown says nothing of the text, unless it is another one as well.
        self._special = {index for name, index in ids.items() if name != tokenizer.unk_token}

    def encode(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        parts = [list(self._parts(text)) for text in texts]
        stretches = [part for own in parts for part in own if isinstance(part, str)]
        found = iter(self._read(stretches, target))
        return [
            [index for part in own for index in (next(found) if isinstance(part, str) else [part])] for own in parts
        ]

    def decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids))

    def _parts(self, text: str) -> Iterator[str | int]:
        """The special tokens' ids, and the text between them, which such tokenizers read by itself."""
        stretch, *rest = _MARK.split(text)
        for index, following in zip(map(int, rest[::2]), rest[1::2], strict=True):
            token = self._tokenizer.added_tokens_decoder.get(index)
            yield stretch.rstrip() if getattr(token, "lstrip", False) else stretch
            yield index
            stretch = following.lstrip() if getattr(token, "rstrip", False) else following
        yield stretch

    def _read(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        def called(chosen: list[int], **options: Any) -> list[list[int]]:
            given = {"text_target" if target else "text": [texts[i] for i in chosen], **options}
            ids = self._tokenizer(**given, add_special_tokens=False, verbose=False).input_ids if chosen else []
            return [list(own) for own in ids]

        found: list[list[int]] = [[] for _ in texts]
        with untouched(self._tokenizer):
            full = [i for i, text in enumerate(texts) if text]
            for i, ids in zip(full, called(full), strict=True):
                found[i] = ids
            spelled = [i for i in full if not self._special.isdisjoint(found[i])]
            for i, ids in zip(spelled, called(spelled, split_special_tokens=True), strict=True):
                found[i] = ids
        return found


_READERS: WeakKeyDictionary[Any, tuple[int, Reader]] = WeakKeyDictionary()


def reader(tokenizer: Any) -> Reader:
    """How this tokenizer reads texts: made once, and again when tokens were added to the tokenizer."""
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    known = _READERS.get(tokenizer)
    if known is None or known[0] != size:
        _READERS[tokenizer] = known = size, _reader(tokenizer)
    return known[1]


def _reader(tokenizer: Any) -> Reader:
    # A class that encodes in its own way does more than its backend, and parts written in Python cannot be copied.
    if getattr(type(tokenizer), "_encode_plus", None) is not PreTrainedTokenizerFast._encode_plus:
        return Called(tokenizer)
    try:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # the backend has no narrower one
        if "cannot be serialized" not in str(error):
            raise
        return Called(tokenizer)
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    return Twin(content, special | set(tokenizer.all_special_tokens), split=tokenizer.split_special_tokens)


def _mark(index: int) -> str:
    return f"{_SECRET}i{index}x"


def _renamed(content: dict[str, Any], marks: Mapping[str, str]) -> dict[str, Any]:
    """A tokenizer.json in which special tokens are called by their marks, so that nothing else can become them."""
    for token in content["added_tokens"]:
        if token["content"] in marks:
            token |= {"content": marks[token["content"]], "single_word": False, "special": True}
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {marks.get(word, word): index for word, index in model["vocab"].items()}
    else:
        model["vocab"] = [[marks.get(word, word), score] for word, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = marks.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        inner = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if marks.keys().isdisjoint((left, right, left + right.removeprefix(inner)))
        ]
    return {**content, "truncation": None, "padding": None, "post_processor": None}
