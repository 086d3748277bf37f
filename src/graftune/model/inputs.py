"""Inputs: what the base is given in place of the caller's, with virtual tokens and positions where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.adapter import Adapter
from graftune.model.anatomy import Anatomy
from graftune.model.layout import Arranged, Layout, Place, arrange
from graftune.model.positions import Positions, refuse_longer
from graftune.model.routing import Routing
from graftune.model.vocabulary import in_vocabulary, padded_with, padding_of, real_tokens, rows_of, unused

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
        positions: Positions,
    ) -> None:
        self.base, self.anatomy, self.routing, self.adapters = base, anatomy, routing, adapters
        self.layout, self.positions = Layout(), positions
        #: Whether the base is an encoder with a decoder.
        self.paired = bool(base.config.is_encoder_decoder)
        #: Whether positions can be given: in rows of one number a token, not of several (an image's places).
        self.shiftable = takes_positions and not self.paired
        self.shiftable &= not any(hasattr(module, "get_rope_index") for module in base.modules())
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
        with ExitStack() as stack:
            inputs = self._in_vocabulary(inputs, stack)
            arranged = self._arrange(inputs)
            self.layout.virtual = None if arranged is None else arranged.virtual
            # What comes out of an encoder-decoder has the decoder's columns, as they were.
            self.layout.kept = None if arranged is None or self.paired else arranged.kept
            ready = inputs if arranged is None else {**inputs, **arranged.inputs}
            if self.paired:
                self._check_source(ready, 0 if arranged is None else arranged.added)
            stack.callback(self.base.register_forward_pre_hook(self._position, with_kwargs=True).remove)
            yield ready, arranged

    def _in_vocabulary(self, inputs: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
        """The inputs with padding that the base knows, whatever stood in its place."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None or ids.dim() != 2:
            return dict(inputs)
        padding = padding_of(self.base)
        fill = unused(self.base, ids, mask) if padding is None else padding
        counts = [0 if name is None else self.adapter(name).virtual_tokens for name in self.routing.names]
        ids = in_vocabulary(ids, mask, counts, rows_of(self.base), fill)
        if padding is None and not self.base.can_generate():
            stack.enter_context(padded_with(self.base, fill))
            ids = ids.masked_fill(~real_tokens(ids, mask), fill)
        ready = {**inputs, "input_ids": ids}
        target = inputs.get("decoder_input_ids")
        if isinstance(target, Tensor):
            none = [0] * len(target)
            ready["decoder_input_ids"] = in_vocabulary(
                target, inputs.get("decoder_attention_mask"), none, rows_of(self.base), fill
            )
        return ready

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
        rows = rows_of(self.base)
        placed = bool((ids >= rows).any())
        mask = inputs.get("attention_mask")
        # Where positions cannot be given, padding in front of a text would count as text.
        padded = self.paired and isinstance(mask, Tensor) and bool((mask[:, 0] == 0).any())
        if not placed and not padded and (not any(counts) or inputs.get("past_key_values") is not None):
            return None
        if mask is not None and not (isinstance(mask, Tensor) and mask.shape == ids.shape):
            raise GraftuneError(
                "virtual tokens need a mask with one entry per token",
                received=f"an attention_mask of shape {tuple(getattr(mask, 'shape', ()))}",
                expected=f"shape {tuple(ids.shape)}, or none",
                do="pass 1 for text and 0 for padding, or use a method without virtual tokens",
            )
        for row, name in enumerate(self.routing.names):
            if name is not None and not self.adapter(name).method.front and not bool((ids[row] >= rows).any()):
                raise GraftuneError(
                    f"row {row} holds no virtual tokens, and its adapter's do not stand in front",
                    received=f"ids below {rows} for adapter {name!r}",
                    expected=f"the template {self.adapter(name).method.template!r}, virtual token j as id {rows} + j",
                    do="encode the text with the adapter's template (graftune.templates.Template)",
                )
        tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor) and (not self.paired or k in ENCODED)}
        arranged = arrange(tensors, counts, rows, place=self._place, padding=padding_of(self.base))
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

    def _check_source(self, inputs: dict[str, Any], added: int) -> None:
        """Raise GraftuneError for a text that an encoder-decoder has no positions for."""
        states = inputs.get("input_ids") if inputs.get("input_ids") is not None else inputs.get("inputs_embeds")
        if isinstance(states, Tensor) and self.positions.text is not None:
            width = states.shape[1]
            refuse_longer(self.positions.text, lambda: width, width, added=added, what="text")

    def _position(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Count positions from the first real token, and shift them by what the adapters ask for.

        Raises GraftuneError where the base has not as many.
        """
        cache = kwargs.get("past_key_values")
        seen = 0 if cache is None else cache.get_seq_length()
        if self.paired:
            target = next((kwargs[k] for k in ("decoder_input_ids", "labels") if kwargs.get(k) is not None), None)
            if (
                isinstance(target, Tensor)
                and target.dim() > 1
                and self.positions.target is not None
                and isinstance(seen, int)
            ):
                used = seen + target.shape[1]
                refuse_longer(self.positions.target, lambda: used, used, what="target")
            return None
        given = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
        if given is None:
            return None
        offsets = [0 if n is None else self.adapter(n).offset for n in self.routing.expanded(given.shape[0])]
        changed = self._positioned(given, kwargs, seen, offsets) if self.shiftable else None
        if self.positions.text is not None and isinstance(seen, int):
            positions = kwargs.get("position_ids") if changed is None else changed
            most = seen + given.shape[1]
            refuse_longer(
                self.positions.text,
                lambda: self._used(positions, kwargs.get("input_ids"), most),
                most + max(offsets, default=0),
                added=self.layout.added,
                shift=max(offsets, default=0),
                what="text",
            )
        return None if changed is None else (args, {**kwargs, "position_ids": changed})

    def _used(self, positions: Tensor | None, ids: Tensor | None, most: int) -> int:
        """How many positions a call of the base uses."""
        first = 0 if self._counted is None else self._counted + 1
        if positions is not None:
            return int(positions.max()) + 1 - first
        if self._counted is not None and ids is not None:
            return int((ids != self._counted).sum(-1).max()) + most - ids.shape[1]
        return most

    def _positioned(self, given: Tensor, kwargs: dict[str, Any], seen: Any, offsets: list[int]) -> Tensor | None:
        """The positions (B, T) of ``given``, ids (B, T) or embeddings (B, T, d); None where the base knows them."""
        positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
        shift = torch.tensor(offsets, device=given.device)[:, None]
        if self._counted is not None and positions is None:
            if not any(offsets):
                return None
            real = (given != self._counted).long() if given.dim() == 2 else torch.ones_like(given[..., 0]).long()
            return (real.cumsum(-1) + seen + shift) * real + self._counted
        padded = positions is None and isinstance(mask, Tensor) and mask.dim() == 2 and bool((mask[:, 0] == 0).any())
        if not padded and not any(offsets):
            return None
        if positions is None:
            if mask is None:
                positions = torch.arange(seen, seen + given.shape[1], device=given.device)[None]
            else:
                positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -given.shape[1] :]
        return positions + shift
