"""Attention over short sequences on the CPU, as plain products.

Torch's fused attention saves memory on long sequences; on short ones in bf16 it takes longer on the CPU than the
products it is made of, and in fp32 about as long (docs/results/kernel-time.csv).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from graftune.model import attention

SHORT = "short"
LONGEST = 256  # keys; beyond, the fused one is as fast
#: Arguments that change nothing here: they are already in the mask, or for other implementations.
KNOWN = {"position_ids", "cache_position", "use_cache", "output_attentions", "sliding_window", "layer_idx"}


def short(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q kᵀ·scaling + mask) v, (B, T, H, d_v), for query (B, H, T, d_k) and keys (B, H_kv, S, d_k)."""
    others = {name for name, given in kwargs.items() if given is not None} - KNOWN
    if key.shape[2] > LONGEST or dropout or others:
        fused: tuple[Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
        return fused
    batch, heads, targets, width = query.shape
    shared, sources = key.shape[1], key.shape[2]
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    if attention_mask is None and is_causal and targets > 1:
        attention_mask = torch.ones(targets, sources, dtype=torch.bool, device=query.device).tril()[None, None]
    # Queries that share keys stand under one another: (B · H_kv, group · T, d_k).
    rows = query.reshape(batch * shared, -1, width)
    keys = key.reshape(batch * shared, sources, width).transpose(1, 2)
    values = value.reshape(batch * shared, sources, -1)
    scale = width**-0.5 if scaling is None else scaling
    bias = rows.new_zeros(1, 1, 1) if attention_mask is None else _added(attention_mask, rows, batch, shared, heads)
    scores = torch.baddbmm(bias, rows, keys, alpha=scale)  # mask and scale in the same pass
    mixed = scores.softmax(-1) @ values
    return mixed.view(batch, heads, targets, -1).transpose(1, 2), None


def _added(mask: Tensor, like: Tensor, batch: int, shared: int, heads: int) -> Tensor:
    """What a mask (B|1, H|1, T, S) adds to the scores (B · H_kv, group · T, S)."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, torch.finfo(like.dtype).min)
    targets, sources = mask.shape[-2:]
    whole = mask.expand(batch, heads, targets, sources)
    return whole.reshape(batch * shared, -1, sources)


AttentionInterface.register(SHORT, short)
AttentionMaskInterface.register(SHORT, ALL_MASK_ATTENTION_FUNCTIONS["eager"])  # added up once for all layers
attention.support(SHORT)


@contextmanager
def replaced(base: PreTrainedModel) -> Iterator[bool]:
    """Within the block a base on the CPU attends by ``short`` instead of "sdpa"; yields whether it does."""
    if base.device.type != "cpu":
        yield False
        return
    with attention.renamed(base, "sdpa", SHORT) as found:
        yield found
