"""Rows of token ids as rectangular tensors, and the order in which to batch them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from graftune.tasks.features import Features

IGNORED = -100  # the label of a position that is no target

Side = Literal["left", "right"]


def pad(rows: Sequence[Sequence[int]], value: int, side: Side = "right", width: int = 0) -> Tensor:
    """int64 (rows, longest, but at least `width`): each row with `value` on the given side."""
    width = max(width, *(len(row) for row in rows))
    filled = [[value] * (width - len(row)) for row in rows]
    if side == "left":
        return torch.tensor([[*fill, *row] for fill, row in zip(filled, rows, strict=True)])
    return torch.tensor([[*row, *fill] for fill, row in zip(filled, rows, strict=True)])


def inputs(rows: Sequence[Features], pad_id: int, side: Side = "right", width: int = 0) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, int64 (rows, longest, but at least `width`).

    `token_type_ids` as well, where any row has them.
    """
    batch = {
        "input_ids": pad([row.ids for row in rows], pad_id, side, width),
        "attention_mask": pad([[1] * len(row.ids) for row in rows], 0, side, width),
    }
    if any(row.type_ids is not None for row in rows):
        batch["token_type_ids"] = pad([row.type_ids or [0] * len(row.ids) for row in rows], 0, side, width)
    return batch


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of `size`, longest first: little padding, and a lack of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), size):
        yield order[start : start + size]
