"""Override: another forward for one module, for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_replaced(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Within the block, calling ``module`` runs ``function`` in place of its forward; its hooks still run."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = function
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before
