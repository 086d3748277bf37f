"""Targets of encoder-decoders: their tokens, the language they are in, and what the decoder starts from."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSeq2SeqLM

from graftune.errors import GraftuneError, unknown
from graftune.templates.tokens import spelled_out, spells_special


def target_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a target with all that the tokenizer puts around one, as `tokenizer(text_target=text)` has them.

    Marian has a vocabulary of its own for targets, mBART and NLLB put the language's token before or after the text, T5
    its end. What spells a special token stays text.
    """
    if not spells_special(tokenizer, text):
        return list(tokenizer(text_target=text, verbose=False)["input_ids"])
    before, after = _around(tokenizer)
    ids = list(tokenizer(text_target=text, split_special_tokens=True, verbose=False)["input_ids"])
    inside = ids[len(before) : len(ids) - len(after)]
    return [*before, *(piece for token in inside for piece in spelled_out(tokenizer, token)), *after]


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens before and after every target."""
    whole, empty = (list(tokenizer(text_target=text, verbose=False)["input_ids"]) for text in ("a", ""))
    count = 0
    while count < len(empty) and whole[-1 - count] == empty[-1 - count]:
        count += 1
    return empty[: len(empty) - count], whole[len(whole) - count :]


@dataclass(frozen=True)
class TargetForm:
    """What a tokenizer puts around every target, and what the decoder reads first.

    ``rotates``: the last token of a target comes first in what the decoder reads (mBART's language).
    """

    before: list[int]
    after: list[int]
    start: int
    rotates: bool

    @property
    def end(self) -> int | None:
        """The token after the text; None where the tokenizer adds none."""
        return self.after[0] if self.after else None

    def decoder_inputs(self, labels: Sequence[int]) -> list[int]:
        """What the decoder reads while it writes the labels: these, one later, after the token that starts a text.

        As the base's own `prepare_decoder_input_ids_from_labels` has it.
        """
        return [labels[-1] if self.rotates else self.start, *labels[:-1]]


def target_form(tokenizer: Any, config: Any) -> TargetForm:
    """The form of targets for a base. Raises GraftuneError where nothing says what its decoder starts from."""
    before, after = _around(tokenizer)
    rotates = _rotates(config)
    return TargetForm(before, after, after[-1] if rotates and after else decoder_start(config), rotates)


def _rotates(config: Any) -> bool:
    """Whether the base's own shift of labels takes no start token, but moves the last one to the front."""
    model = AutoModelForSeq2SeqLM._model_mapping.get(type(config), None)
    module = None if model is None else sys.modules.get(getattr(model, "__module__", ""))
    shift = getattr(module, "shift_tokens_right", None)
    return shift is not None and "decoder_start_token_id" not in inspect.signature(shift).parameters


def decoder_start(config: Any) -> int:
    """The token that the decoder starts from: the config's, else its decoder's, else bos, else padding as for T5.

    Raises GraftuneError where the config has none of them.
    """
    candidates = [config, config.get_text_config(decoder=True)]
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for one in candidates:
            if isinstance(value := getattr(one, name, None), int) and value >= 0:
                return value
    raise GraftuneError(
        "the base does not say which token starts its decoder",
        received=f"decoder_start_token_id=None in {type(config).__name__}",
        expected="the id of the token that a text starts with",
        do="set it in the base's config.json: decoder_start_token_id",
    )


def languages(tokenizer: Any) -> tuple[str, ...]:
    """The codes of the languages that a tokenizer knows; none for most."""
    if not hasattr(tokenizer, "src_lang"):
        return ()
    for name in ("lang_code_to_token", "lang_code_to_id"):
        if codes := getattr(tokenizer, name, None):
            return tuple(codes)
    added = getattr(tokenizer, "extra_special_tokens", None) or getattr(tokenizer, "additional_special_tokens", None)
    return tuple(str(token) for token in added or ())


def with_languages(tokenizer: Any, source: str | None, target: str | None) -> Any:
    """The tokenizer for these languages; a copy, where any is named.

    Raises GraftuneError for a language that it does not know, for one named to a tokenizer without languages, and for
    a tokenizer with languages that is told no target.
    """
    known = languages(tokenizer)
    if not known:
        if source is None and target is None:
            return tokenizer
        raise GraftuneError(
            "the tokenizer knows no languages",
            received=f"src_lang={source}, tgt_lang={target} for {type(tokenizer).__name__}",
            expected="a tokenizer with language codes, such as those of mBART, NLLB or M2M100",
            do="leave the languages out, or say them in the pattern: 'translate English to German: {input}'",
        )
    if target is None and getattr(tokenizer, "tgt_lang", None) is None:
        raise GraftuneError(
            "the tokenizer has to be told the language of the targets",
            received=f"tgt_lang=None for {type(tokenizer).__name__}",
            expected=f"one of its {len(known)} codes, such as {', '.join(known[:3])}",
            do="--set translate.src_lang=… --set translate.tgt_lang=…",
        )
    if source is None and target is None:
        return tokenizer
    chosen = copy.deepcopy(tokenizer)
    for name, code in (("src_lang", source), ("tgt_lang", target)):
        if code is None:
            continue
        if code not in known:
            raise unknown("language", code, known)
        setattr(chosen, name, code)
    return chosen
