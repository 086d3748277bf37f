"""Vocabulary: ids that the base's embedding has no row for, and the padding that a base counts by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from graftune.errors import GraftuneError


def rows_of(base: PreTrainedModel) -> int:
    """How many rows the base's table of token embeddings has."""
    return int(base.get_input_embeddings().num_embeddings)


def padding_of(base: PreTrainedModel) -> int | None:
    """The base's padding token, where its embedding has a row for it."""
    found = getattr(base.config.get_text_config(), "pad_token_id", None)
    return found if found is not None and 0 <= found < rows_of(base) else None


def real_tokens(ids: Tensor, mask: object) -> Tensor:
    """Which ids (B, T) are no padding, by a mask (B, T); all of them without one."""
    fits = isinstance(mask, Tensor) and mask.shape == ids.shape
    return mask.bool() if isinstance(mask, Tensor) and fits else torch.ones_like(ids, dtype=torch.bool)


def in_vocabulary(ids: Tensor, mask: object, virtual: Sequence[int], rows: int, fill: int) -> Tensor:
    """The ids with ``fill`` in the place of padding that the embedding of ``rows`` rows does not have.

    ``virtual[b]`` is how many virtual tokens row b may hold. Raises GraftuneError for any other id without a row.
    """
    outside = (ids < 0) | (ids >= rows)
    if not bool(outside.any()):
        return ids
    real = real_tokens(ids, mask)
    without = torch.tensor([n == 0 for n in virtual], device=ids.device)[:, None]
    wrong = outside & real & ((ids < 0) | without)
    if bool(wrong.any()):
        row, column = (int(i) for i in wrong.nonzero()[0])
        raise GraftuneError(
            "the tokenizer has more tokens than the base's embedding has rows",
            received=f"id {int(ids[row, column])} in row {row}, column {column}, which is no padding",
            expected=f"ids from 0 to {rows - 1}",
            do="resize the embedding before the base is wrapped: base.resize_token_embeddings(len(tokenizer))",
        )
    return ids.masked_fill(outside & ~real, fill)


def unused(base: PreTrainedModel, ids: Tensor, mask: object) -> int:
    """A token of the vocabulary that ends no row, to pad with where the base has no padding token."""
    real = real_tokens(ids, mask)
    columns = torch.arange(ids.shape[1], device=ids.device)
    last = ids.gather(1, (columns * real).argmax(1, keepdim=True)).flatten().tolist()
    return next(id for id in range(rows_of(base)) if id not in last)


@contextmanager
def padded_with(base: PreTrainedModel, id: int) -> Iterator[None]:
    """Within the block the base takes ``id`` for padding: a classifier looks for the last token that is none."""
    configs = [config for config in (base.config, base.config.get_text_config()) if hasattr(config, "pad_token_id")]
    before = [config.pad_token_id for config in configs]
    for config in configs:
        config.pad_token_id = id
    try:
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config.pad_token_id = own
