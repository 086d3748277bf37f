"""Override: another forward for some modules, for the length of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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


@contextmanager
def forwards_replaced(functions: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """``forward_replaced`` for several modules."""
    with ExitStack() as stack:
        for module, function in functions.items():
            stack.enter_context(forward_replaced(module, function))
        yield
