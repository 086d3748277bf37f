"""Head: the base's output head on chosen hidden states only.

Logits of positions that nobody asks about cost a product with the whole vocabulary each, and the room to keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.override import forward_replaced
from graftune.model.trace import dummy_inputs


class Head:
    """The output embeddings of a base, and whatever the base does to their logits (scaling, soft-capping)."""

    def __init__(self, base: PreTrainedModel) -> None:
        module = base.get_output_embeddings()
        if module is None:
            raise GraftuneError(
                "this base has no output head over its vocabulary",
                received=type(base).__name__,
                expected="a language model, from AutoModelForCausalLM or AutoModelForMaskedLM",
            )
        self.base = base
        self.module: nn.Module = module
        self._trunk: Any = None
        self._inputs = dummy_inputs(base)
        self._bare = self._is_bare()

    @contextmanager
    def skipped(self) -> Iterator[list[Tensor]]:
        """Within the block, the head computes nothing; the list receives the hidden states it would read."""
        read: list[Tensor] = []

        def take(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            read[:] = [args[0]]
            return (args[0][:, :0], *args[1:])

        handle = self.module.register_forward_pre_hook(take)
        try:
            yield read
        finally:
            handle.remove()

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of hidden states (n, d), as the base itself would give them."""
        logits: Tensor = self.module(hidden) if self._bare else self._finished(hidden)
        return logits

    def _is_bare(self) -> bool:
        """Whether the base returns what the head gives as it is; found by running it once."""
        given: list[Tensor] = []
        kept: list[Any] = []
        handles = [self.module.register_forward_hook(lambda m, a, output: given.append(output))]
        if self.base.base_model is not self.base:
            handles.append(self.base.base_model.register_forward_hook(lambda m, a, output: kept.append(output)))
        training = self.base.training
        self.base.eval()
        try:
            with torch.no_grad():
                logits = self.base(**self._inputs).logits
        finally:
            self.base.train(training)
            for handle in handles:
                handle.remove()
        self._trunk = kept[-1] if kept else None
        if given[-1] is logits or torch.equal(given[-1], logits):
            return True
        if self._trunk is None:
            raise GraftuneError(
                "the logits of this base cannot be computed for chosen positions",
                received=f"{type(self.base).__name__}, which changes them and has no trunk of its own",
                expected="a base with a base_model",
            )
        return False

    def _finished(self, hidden: Tensor) -> Tensor:
        """The base's own forward, with its trunk standing still and the head reading ``hidden``."""
        handle = self.module.register_forward_pre_hook(lambda module, args: (hidden[None],), prepend=True)
        try:
            with forward_replaced(self.base.base_model, lambda *args, **kwargs: self._trunk):
                finished: Tensor = self.base(**self._inputs).logits
        finally:
            handle.remove()
        return finished[0]
