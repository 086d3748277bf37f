"""Targets of encoder-decoders: how their texts are tokenised, in which language, and with what a decoder begins."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from transformers import AutoModelForSeq2SeqLM

from graftune.errors import GraftuneError, unknown
from graftune.templates.frames import special_tokens
from graftune.templates.tokens import reader


def target_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a decoder's text with its special tokens; what spells a special token in it is read as plain text.

    Raises GraftuneError for a tokenizer with languages of which none is set for targets.
    """
    return many_target_ids(tokenizer, [text])[0]


def many_target_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """As `target_ids` for each text; faster, since the tokenizer reads all of them at once."""
    if getattr(tokenizer, "tgt_lang", "") is None and languages(tokenizer):
        raise _unset(tokenizer, "the target language", "tgt_lang")
    opening, closing = special_tokens(tokenizer, target=True)
    return [opening + ids + closing for ids in reader(tokenizer).ids(texts, target=True)]


# Languages --------------------------------------------------------------------------------------------------


def languages(tokenizer: Any) -> tuple[str, ...]:
    """The codes of the languages that can be set for a tokenizer, such as eng_Latn, en_XX or en; none for others."""
    if not hasattr(tokenizer, "src_lang"):
        return ()
    if codes := getattr(tokenizer, "lang_code_to_id", None):
        return tuple(codes)
    named = {str(token) for token in tokenizer.special_tokens_map.values()}
    return tuple(token for token in tokenizer.all_special_tokens if token not in named and re.fullmatch(r"\w+", token))


def with_languages(tokenizer: Any, source: str | None, target: str | None) -> Any:
    """The tokenizer with languages set: a copy, or itself if there is nothing to set.

    What is not given is what the checkpoint sets. Raises GraftuneError for an unknown code, for languages given to a
    tokenizer that knows none, and for one that knows some if neither the caller nor the checkpoint chooses.
    """
    known = languages(tokenizer)
    given = {name: code for name, code in (("src_lang", source), ("tgt_lang", target)) if code is not None}
    if not known:
        if given:
            raise GraftuneError(
                "the tokenizer knows no languages",
                received=f"{', '.join(f'{name}={code!r}' for name, code in given.items())}; {type(tokenizer).__name__}",
                expected="the tokenizer of a model for many languages, such as NLLB, mBART or M2M100",
                do=f"leave {' and '.join(given)} out",
            )
        return tokenizer
    for code in given.values():
        if code not in known:
            raise unknown("language", code, known)
    # Every such tokenizer has some source language from the start: it is a choice only where the checkpoint says so.
    chosen = tokenizer.tgt_lang is not None or getattr(tokenizer, "init_kwargs", {}).get("src_lang") is not None
    if source is None and not chosen:
        raise _unset(tokenizer, "the source language", "src_lang")
    if target is None and tokenizer.tgt_lang is None:
        raise _unset(tokenizer, "the target language", "tgt_lang")
    if not given:
        return tokenizer
    # Not by copy.copy, which has a SentencePiece model read again from a file that may be gone.
    found = object.__new__(type(tokenizer))
    found.__dict__.update(tokenizer.__dict__)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        found._tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
    for name, code in given.items():
        setattr(found, name, code)
    return found


def forced_start(tokenizer: Any, target: str | None = None) -> int | None:
    """The id of the target language where targets begin with it: what a decoder writes first (forced_bos_token_id).

    None where they do not: without languages, and where a decoder starts with the language instead (mBART).
    """
    if not languages(tokenizer):
        return None
    if target is not None and target != tokenizer.tgt_lang:
        tokenizer = with_languages(tokenizer, tokenizer.src_lang, target)
    opening, _ = special_tokens(tokenizer, target=True)
    return opening[0] if opening else None


def _unset(tokenizer: Any, what: str, option: str) -> GraftuneError:
    known = languages(tokenizer)
    return GraftuneError(
        f"{what} is not set",
        received=f"no {option}; a tokenizer of {len(known)} languages ({type(tokenizer).__name__})",
        expected="one of " + ", ".join(known),
        do=f"set {option}, for example {option}={known[0]!r}",
    )


# Decoders ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TargetForm:
    """What a tokenizer puts around every target, and what the decoder reads first.

    ``rotates``: the last token of a target comes first in what the decoder reads (mBART's language).
    """

    opening: list[int]
    closing: list[int]
    start: int
    rotates: bool

    def decoder_inputs(self, labels: Sequence[int]) -> list[int]:
        """What the decoder reads while it writes the labels: these, one later, after the token that starts a text.

        As the base's own `prepare_decoder_input_ids_from_labels` has it.
        """
        return [labels[-1] if self.rotates else self.start, *labels[:-1]]


def target_form(tokenizer: Any, config: Any) -> TargetForm | None:
    """The form of targets for an encoder-decoder; None for other bases. Raises GraftuneError as `decoder_start`."""
    start = decoder_start(config, tokenizer)
    if start is None:
        return None
    opening, closing = special_tokens(tokenizer, target=True)
    return TargetForm(opening, closing, start, wraps(config))


def decoder_start(config: Any, tokenizer: Any) -> int | None:
    """The id that an encoder-decoder's decoder begins with; None for other models.

    It is the config's or its decoder's `decoder_start_token_id`; the last token of targets where the model puts it
    first (mBART: the language); the padding of models that are made so (T5), or their decoder's `bos_token_id`.
    Raises GraftuneError where none of these is set.
    """
    if not config.is_encoder_decoder:
        return None
    if wraps(config):
        _, closing = special_tokens(tokenizer, target=True)
        if closing:
            return closing[-1]
    inner = _decoder(config)
    places = [(config, "decoder_start_token_id"), (inner, "decoder_start_token_id")]
    if hasattr(_model_class(config), "_shift_right"):
        places.append((inner, "bos_token_id") if inner is not None else (config, "pad_token_id"))
    for owner, name in places:
        if (found := getattr(owner, name, None)) is not None:
            return int(found)
    raise GraftuneError(
        "the base does not say with which token its decoder begins",
        received=f"decoder_start_token_id=None in {type(config).__name__}",
        expected="the id of a token, such as the tokenizer's bos_token_id or cls_token_id",
        do="set config.decoder_start_token_id and save the base again",
    )


def wraps(config: Any) -> bool:
    """Whether the model's own shift of labels puts their last token first, and so takes no token to begin with."""
    found = _model_class(config)
    shift = getattr(import_module(found.__module__), "shift_tokens_right", None) if found is not None else None
    return shift is not None and "decoder_start_token_id" not in signature(shift).parameters


def _decoder(config: Any) -> Any:
    """The config of the part that writes, where it has one of its own."""
    return getattr(config, "decoder", None) or getattr(config, "text_config", None)


def _model_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM._model_mapping.get(type(config), None)
