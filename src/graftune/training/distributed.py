"""Several processes: each takes its share of a step's rows, and all make the same update.

The base is the same in every process and the adapter small, so that one sum over the adapter's gradients a step
is all there is to say. Started by ``accelerate launch`` or ``torchrun``; alone, everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor
from torch.distributed import all_reduce, is_available, is_initialized

T = TypeVar("T")


def join() -> None:
    """Join the other processes, where this one was started as one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState()


def rank() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if _several() else 0


def size() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if _several() else 1


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of ``items``: every size-th one."""
    return items[rank() :: size()]


def summed(values: Sequence[Tensor]) -> None:
    """Add up each tensor over all processes, in place and in one message a device."""
    if size() == 1 or not values:
        return
    flat = torch.cat([v.reshape(-1) for v in values])
    all_reduce(flat)
    for value, total in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(total.view_as(value))


def wait() -> None:
    """Wait until every process has come this far."""
    if _several():
        torch.distributed.barrier()


def _several() -> bool:
    return is_available() and is_initialized()
