"""Activations in one pass: GPT-2's GELU is written as seven operations, of which each keeps its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn.functional import gelu
from transformers.activations import NewGELUActivation

from graftune.model.override import forwards_replaced


@contextmanager
def replaced(base: nn.Module) -> Iterator[bool]:
    """Within the block 0.5 x (1 + tanh(√(2/π)(x + 0.044715 x³))) is one operation; yields whether there is any."""
    found = [module for module in base.modules() if type(module) is NewGELUActivation]
    with forwards_replaced({module: partial(gelu, approximate="tanh") for module in found}):
        yield bool(found)
