"""Kernels: the same functions of a frozen base, computed faster and with less memory kept for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from transformers import PreTrainedModel

from graftune.model.kernels import activation, attention, linear, norm


@contextmanager
def fast(base: PreTrainedModel, products: str = "auto") -> Iterator[tuple[str, ...]]:
    """Within the block ``base`` computes by these kernels, where they fit; yields the names of those that do.

    ``products`` chooses the fp32 matrix product on the CPU: "onednn", "torch" or "auto".
    """
    with ExitStack() as stack:
        used: list[str] = []
        for name, kernel in (
            ("linear", linear.replaced(base, products)),
            ("attention", attention.replaced(base)),
            ("activation", activation.replaced(base)),
            ("norm", norm.replaced(base)),
        ):
            if stack.enter_context(kernel):
                used.append(name)
        yield tuple(used)
