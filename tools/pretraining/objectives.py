"""What a model is asked: the next token, or the hidden ones.

Both give the same three things: what it reads, where it is asked, and what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Question:
    """Ids to read (rows, length), where to answer (rows, length) bool, and the answers (asked,)."""

    ids: Tensor
    at: Tensor
    answers: Tensor


def next_token(ids: Tensor) -> Question:
    """Every token but the first of each row, from those before it."""
    at = torch.ones_like(ids, dtype=torch.bool)
    at[:, -1] = False
    return Question(ids, at, ids[:, 1:].flatten())


def hidden_tokens(ids: Tensor, mask: int, end: int, share: float, generator: torch.Generator) -> Question:
    """A random ``share`` of the tokens, each replaced by ``mask``; ends of texts are never asked.

    Rows are framed by ``end``, as the encoder's tokenizer frames every text.
    """
    ids = ids.clone()
    ids[:, 0] = ids[:, -1] = end
    at = (torch.rand(ids.shape, generator=generator).to(ids.device) < share) & (ids != end)
    return Question(ids.masked_fill(at, mask), at, ids[at])
