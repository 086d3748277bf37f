"""What counting alone reaches on the held-out text, to be read beside a model's figures.

Next token: an n-gram model with absolute discounting, interpolated down to the unigrams (Chen and Goodman 1999,
section 2.7), P(w | h) = max(c(hw) − D, 0)/c(h) + D·N(h·)/c(h) · P(w | h′), with h′ the history without its first
token, N(h·) the number of different tokens seen behind h, and D = 0.75.
Hidden token: the one seen most often between the same two neighbours, else behind the left one, else at all.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pretraining.architectures import CONTEXT
from pretraining.heldout import HIDDEN, Figures, by_source, windows
from pretraining.objectives import hidden_tokens
from pretraining.text import VOCABULARY, Corpus

DISCOUNT = 0.75
ORDER = 5  # five ids of twelve bits fit one integer of 64

Ids = NDArray[np.int64]


def _keys(columns: Ids) -> Ids:
    """Rows of ids (…, n) as one integer each (…,)."""
    keys = np.zeros(columns.shape[:-1], dtype=np.int64)
    for column in range(columns.shape[-1]):
        keys = keys * VOCABULARY + columns[..., column]
    return keys


def _grams(stream: Ids, order: int) -> Ids:
    """Every run of ``order`` tokens along the last axis as one integer."""
    return _keys(np.lib.stride_tricks.sliding_window_view(stream, order, axis=-1))


def _lookup(table: Ids, values: Ids, keys: Ids) -> Ids:
    """The value of each key in a sorted table, 0 where it is not there."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[place] == keys, values[place], 0)


def ngram_bits_per_byte(corpus: Corpus, order: int) -> Figures:
    """Bits per byte of the n-gram model in windows of ``CONTEXT`` tokens, as for a decoder.

    Histories do not reach over a window's start; the first token of a window is not counted.
    """
    stream = corpus.train.astype(np.int64)
    sizes = corpus.bytes_of_tokens()
    rows = {source: windows(ids, CONTEXT) for source, ids in corpus.heldout.items()}
    counts = np.bincount(stream, minlength=VOCABULARY) + 1.0  # no token is impossible
    probability = {source: counts[r[:, 1:]] / counts.sum() for source, r in rows.items()}
    for n in range(2, order + 1):
        grams, seen = np.unique(_grams(stream, n), return_counts=True)
        histories, first, followers = np.unique(grams // VOCABULARY, return_index=True, return_counts=True)
        totals = np.add.reduceat(seen, first)
        for source, r in rows.items():
            wanted = _grams(r, n)  # (rows, CONTEXT − n + 1): the tokens from number n − 1 on
            total = _lookup(histories, totals, wanted // VOCABULARY)
            kinds = _lookup(histories, followers, wanted // VOCABULARY)
            count = _lookup(grams, seen, wanted)
            lower = probability[source][:, n - 2 :]
            mixed = (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds * lower) / np.maximum(total, 1)
            probability[source][:, n - 2 :] = np.where(total > 0, mixed, lower)
    bits = {source: (-np.log2(p).sum(), float(sizes[rows[source][:, 1:]].sum())) for source, p in probability.items()}
    return by_source(bits)


def neighbours_accuracy(corpus: Corpus, length: int, seed: int = 0) -> dict[str, Figures]:
    """Accuracy on the same hidden tokens as the encoder's: always the most frequent token, and by two neighbours.

    The neighbours are shown even where the encoder finds them hidden.
    """
    stream = corpus.train.astype(np.int64)
    most = int(np.bincount(stream).argmax())
    left = _favourites(_keys(np.stack([stream[:-1], stream[1:]], -1)))
    between = _favourites(_keys(np.stack([stream[:-2], stream[2:], stream[1:-1]], -1)))
    always: dict[str, tuple[float, float]] = {}
    counted: dict[str, tuple[float, float]] = {}
    for source, ids in corpus.heldout.items():
        generator = torch.Generator().manual_seed(seed)
        batch = torch.from_numpy(windows(ids, length))
        question = hidden_tokens(batch, corpus.mask, corpus.end, HIDDEN, generator)
        row, column = (axis.numpy() for axis in torch.where(question.at))
        before, after = batch[row, column - 1].numpy(), batch[row, column + 1].numpy()
        truth = question.answers.numpy()
        guess = _lookup(*left, before)
        found = _lookup(*between, before * VOCABULARY + after)
        guess = np.where(found > 0, found, np.where(guess > 0, guess, most + 1)) - 1
        always[source] = (float((truth == most).sum()), len(truth))
        counted[source] = (float((truth == guess).sum()), len(truth))
    return {"unigram": by_source(always), "neighbours": by_source(counted)}


def _favourites(grams: Ids) -> tuple[Ids, Ids]:
    """Sorted histories, and the token seen most often with each, plus one: 0 stands for none."""
    keys, counts = np.unique(grams, return_counts=True)
    order = np.lexsort((-counts, keys // VOCABULARY))
    histories, first = np.unique(keys[order] // VOCABULARY, return_index=True)
    return histories, keys[order][first] % VOCABULARY + 1
