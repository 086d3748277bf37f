"""Spans of a text: where an answer is, the best one by its logits, and when to answer nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from graftune.datasets.values import Answer
from graftune.errors import GraftuneError
from graftune.tasks import metrics
from graftune.templates.tokens import reader


def located(answers: Sequence[Answer], text: str) -> tuple[int, int] | None:
    """The characters of the first answer that stands in the text: where it says it starts, or else as whole words.

    An answer that says where it starts and is not there is not looked for elsewhere.
    """
    for answer in answers:
        if answer.start is not None:
            if text.startswith(answer.text, answer.start):
                return answer.start, answer.start + len(answer.text)
            continue
        whole = re.search(rf"(?<!\w){re.escape(answer.text)}(?!\w)", text)
        at = whole.start() if whole else text.find(answer.text)
        if at >= 0:
            return at, at + len(answer.text)
    return None


def located_tokens(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text, and the characters (start, end) of each.

    Raises GraftuneError for a tokenizer that does not tell where its tokens stand.
    """
    read = reader(tokenizer)
    offsets = read.offsets(text)
    if offsets is None:
        raise GraftuneError(
            "extraction needs to know where tokens stand in the text",
            received=f"{type(tokenizer).__name__}, a tokenizer that does not tell",
            expected="a fast tokenizer (tokenizer.json)",
            do="save the base with its fast tokenizer",
        )
    return read.ids([text])[0], offsets


def positions(answer: tuple[int, int] | None, offsets: Sequence[Sequence[int]], start: int) -> list[int]:
    """The positions of the tokens that an answer begins and ends in; (0, 0) where the window does not hold it."""
    if answer is None:
        return [0, 0]
    inside = [i for i, (a, b) in enumerate(offsets) if a < answer[1] and b > answer[0]]
    if not inside or offsets[inside[0]][0] > answer[0] or offsets[inside[-1]][1] < answer[1]:
        return [0, 0]
    return [start + inside[0], start + inside[-1]]


def best_span(start: Tensor, end: Tensor, longest: int) -> tuple[float, int, int]:
    """The best sum of start and end logits (n,) with start ≤ end < start + longest, and where; no span for n = 0."""
    if not len(start):
        return -torch.inf, 0, -1
    sums = start[:, None] + end[None, :]  # (n, n)
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(longest - 1)
    best = sums.masked_fill(~allowed, -torch.inf).flatten().argmax()
    first, last = divmod(int(best), len(end))
    return float(sums[first, last]), first, last


def best_threshold(margins: Sequence[float], texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The threshold on the margins, above which the answer is "", with the best mean F1; of equals the nearest to 0."""
    own, none = (metrics.spans(side, references).sums for side in (texts, [""] * len(texts)))
    assert own is not None and none is not None
    edges = sorted(margins)
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    candidates = sorted({0.0, edges[0] - 1.0, edges[-1] + 1.0, *middles}, key=abs)

    def quality(threshold: float) -> float:
        return sum(none.rows[i][0] if margin > threshold else own.rows[i][0] for i, margin in enumerate(margins))

    return max(candidates, key=quality)
