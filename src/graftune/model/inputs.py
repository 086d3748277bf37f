"""Inputs: what the base is given in place of the caller's, with virtual tokens and positions where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.layout import Arranged, Layout, Place, arrange
from graftune.model.routing import Routing

ENCODED = ("input_ids", "attention_mask")  # what an encoder-decoder's encoder reads


class Inputs:
    """Puts virtual tokens into a batch and counts positions, by the adapters that the routing names."""

    def __init__(
        self,
        base: PreTrainedModel,
        anatomy: Anatomy,
        routing: Routing,
        adapters: nn.ModuleDict,
        takes_positions: bool,
    ) -> None:
        self.base, self.anatomy, self.routing, self.adapters = base, anatomy, routing, adapters
        self.layout = Layout()
        #: Whether the base is an encoder with a decoder.
        self.paired = bool(base.config.is_encoder_decoder)
        #: Whether positions can be shifted.
        self.shiftable = takes_positions and not self.paired
        # Models that count positions from the ids themselves have a padding index in their table of positions.
        self._counted = next(
            (
                m.padding_idx
                for path, m in anatomy.modules.items()
                if isinstance(m, nn.Embedding) and m.padding_idx is not None and "position" in path
            ),
            None,
        )

    def adapter(self, name: str) -> Adapter:
        """The adapter of a name that the routing knows."""
        found = self.adapters[name]
        assert isinstance(found, Adapter)
        return found

    @contextmanager
    def placed(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Arranged | None]]:
        """For one call of the base: its inputs, and how they were arranged (None where no row has virtual tokens)."""
        arranged = self._arrange(inputs)
        self.layout.virtual = None if arranged is None else arranged.virtual
        # What comes out of an encoder-decoder has the decoder's columns, as they were.
        self.layout.kept = None if arranged is None or self.paired else arranged.kept
        hook = self.base.register_forward_pre_hook(self._position, with_kwargs=True)
        try:
            yield dict(inputs) if arranged is None else {**inputs, **arranged.inputs}, arranged
        finally:
            hook.remove()

    def _arrange(self, inputs: dict[str, Any]) -> Arranged | None:
        """Virtual tokens in place, or None where no row of this call has any."""
        ids = inputs.get("input_ids")
        counts = [self.adapter(n).virtual_tokens if n is not None else 0 for n in self.routing.names]
        if ids is None:
            if any(counts):
                raise GraftuneError(
                    "virtual tokens need input_ids",
                    received=", ".join(inputs),
                    expected="input_ids",
                    do="pass ids, or use a method without virtual tokens",
                )
            return None
        rows = self.base.get_input_embeddings().num_embeddings
        placed = bool((ids >= rows).any())
        mask = inputs.get("attention_mask")
        # Where positions cannot be given, padding in front of a text would count as text.
        padded = self.paired and isinstance(mask, Tensor) and bool((mask[:, 0] == 0).any())
        if not placed and not padded and (not any(counts) or inputs.get("past_key_values") is not None):
            return None
        for row, name in enumerate(self.routing.names):
            if name is not None and not self.adapter(name).method.front and not bool((ids[row] >= rows).any()):
                raise GraftuneError(
                    f"row {row} holds no virtual tokens, and its adapter's do not stand in front",
                    received=f"ids below {rows} for adapter {name!r}",
                    expected=f"the template {self.adapter(name).method.template!r}, virtual token j as id {rows} + j",
                    do="encode the text with the adapter's template (graftune.tasks.Template)",
                )
        tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor) and (not self.paired or k in ENCODED)}
        arranged = arrange(tensors, counts, rows, place=self._place)
        if arranged.added and inputs.get("position_ids") is not None:
            raise GraftuneError(
                "positions that are given leave no room for the virtual tokens in front of the text",
                received="position_ids, as packed and padding-free batches have them",
                expected="no position_ids, or virtual tokens placed in the ids by the adapter's template",
                do="train without packing and padding_free, or use a method without virtual tokens",
            )
        return arranged

    @property
    def _place(self) -> Place:
        if self.paired:
            return "front, padding behind"
        seen = [site.causal for layer in self.anatomy.layers for site in layer.attentions]
        causal = seen[0] if seen else self.base.can_generate()
        return "front" if causal else "behind the first"

    def _position(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Count positions from the first real token, and shift them by what the adapters ask for."""
        ids = kwargs.get("input_ids")
        if not self.shiftable or ids is None:
            return None
        positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
        offsets = [0 if n is None else self.adapter(n).offset for n in self.routing.expanded(ids.shape[0])]
        shift = torch.tensor(offsets, device=ids.device)[:, None]
        cache = kwargs.get("past_key_values")
        seen = 0 if cache is None else cache.get_seq_length()
        if self._counted is not None and positions is None:
            real = (ids != self._counted).long()
            counted = (real.cumsum(-1) + seen + shift) * real + self._counted
            return (args, {**kwargs, "position_ids": counted}) if any(offsets) else None
        padded = positions is None and isinstance(mask, Tensor) and mask.dim() == 2 and bool((mask[:, 0] == 0).any())
        if not padded and not any(offsets):
            return None
        if positions is None:
            if mask is None:
                positions = torch.arange(seen, seen + ids.shape[1], device=ids.device)[None]
            else:
                positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return args, {**kwargs, "position_ids": positions + shift}
