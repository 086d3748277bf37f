"""Figures on held-out text: bits per byte of a decoder, masked accuracy of an encoder.

Windows do not overlap. A decoder's windows have ``CONTEXT`` tokens, each token is predicted from those before it
in the window; the end of a document costs bits and has no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from pretraining.architectures import CONTEXT, Architecture
from pretraining.objectives import hidden_tokens, next_token
from pretraining.text import Corpus

HIDDEN = 0.15  # the share that an encoder is asked
ROWS = 8

Figures = dict[str, float]


def windows(ids: NDArray[np.uint16], length: int, at_most: int | None = None) -> NDArray[np.int64]:
    """Disjoint windows (number, length), evenly spread where there are more than ``at_most``."""
    rows = ids[: len(ids) // length * length].reshape(-1, length).astype(np.int64)
    return rows if at_most is None or len(rows) <= at_most else rows[:: len(rows) // at_most][:at_most]


def _batches(rows: NDArray[np.int64], device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(rows), ROWS):
        yield torch.from_numpy(rows[start : start + ROWS]).to(device)


def by_source(parts: dict[str, tuple[float, float]]) -> Figures:
    """A ratio for each source and, of the sums, for all."""
    sums = {**parts, "all": (sum(p[0] for p in parts.values()), sum(p[1] for p in parts.values()))}
    return {source: round(above / below, 4) for source, (above, below) in sums.items()}


@torch.inference_mode()
def bits_per_byte(model: Architecture, corpus: Corpus, at_most: int | None = None) -> Figures:
    """Bits per UTF-8 byte for each source and for all, over at most so many windows a source."""
    sizes = corpus.bytes_of_tokens()
    device = model.model.device

    def measure(ids: NDArray[np.uint16]) -> tuple[float, float]:
        rows = windows(ids, CONTEXT, at_most)
        nats = 0.0
        for batch in _batches(rows, device):
            question = next_token(batch)
            logits = model.head(model.hidden(question.ids)[question.at])
            nats += cross_entropy(logits.float(), question.answers, reduction="sum").item()
        return nats / math.log(2), float(sizes[rows[:, 1:]].sum())

    return by_source({source: measure(ids) for source, ids in corpus.heldout.items()})


@torch.inference_mode()
def masked_accuracy(
    model: Architecture, corpus: Corpus, length: int, at_most: int | None = None, seed: int = 0
) -> Figures:
    """The share of hidden tokens that are guessed right, for each source and for all.

    The same tokens are hidden at every call: 15 %, each replaced by the mask.
    """
    device = model.model.device

    def measure(ids: NDArray[np.uint16]) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(seed)
        right = asked = 0
        for batch in _batches(windows(ids, length, at_most), device):
            question = hidden_tokens(batch, corpus.mask, corpus.end, HIDDEN, generator)
            guesses = model.head(model.hidden(question.ids)[question.at]).argmax(-1)
            right += int((guesses == question.answers).sum())
            asked += len(question.answers)
        return right, asked

    return by_source({source: measure(ids) for source, ids in corpus.heldout.items()})
