"""Visual prompts: n columns more in the sequence of every layer, behind its first one.

X_i ← [x_0; P_i; x_1; …] goes into layer i, and the columns come out again behind it, so that nothing between the
layers, and no head, sees them: P_0 is trained, and P_{i+1} is what layer i made of P_i (shallow) or trained, too
(deep). Jia et al. 2022, arXiv:2203.12119, section 3.2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from graftune.model import attention
from graftune.model.anatomy import Anatomy
from graftune.model.attach import Registration
from graftune.model.columns import Args, Kwargs, inserted, states_of, taken_out
from graftune.model.routing import Routing
from graftune.parts import HiddenRows, LayerSite


class VisualPrompts:
    """Hidden rows by adapter and layer; hooks on all layers and their attention while there are any."""

    def __init__(self, anatomy: Anatomy, routing: Routing) -> None:
        self.anatomy, self.routing = anatomy, routing
        self.parts: dict[str, dict[str, HiddenRows]] = {}
        #: Columns of prompts in the layers of the current batch, and all columns with them: n and n + T.
        self.columns = self.width = 0
        #: Layer -> the columns that the layer below hands on to it.
        self.carried: dict[int, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def add(self, name: str, site: LayerSite, part: HiddenRows) -> Registration:
        """Attach rows for one adapter at the input of one layer."""
        if not self.parts:
            self._hook()
        self.parts.setdefault(name, {})[site.path] = part
        return Registration(partial(self.drop, name, site.path))

    def drop(self, name: str, path: str) -> None:
        """Detach one adapter's rows; the base gets its own layers and attention back with the last ones."""
        del self.parts[name][path]
        if not self.parts[name]:
            del self.parts[name]
        if not self.parts:
            self._unhook()

    def _hook(self) -> None:
        attention.intercept(self.anatomy.base)
        for layer in self.anatomy.layers:
            module = self.anatomy.modules[layer.path]
            self._hooks += [
                module.register_forward_pre_hook(partial(self._enter, layer.index), with_kwargs=True),
                # First of all hooks behind the layer: those that collect hidden states see the image's columns.
                module.register_forward_hook(partial(self._leave, layer.index), prepend=True),
            ]
            for site in layer.attentions:
                attention.widen(self.anatomy.modules[site.path], self._mask)

    def _unhook(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()
        for site in self.anatomy.attentions:
            attention.unwiden(self.anatomy.modules[site.path])
        attention.release(self.anatomy.base)
        self.carried.clear()
        self.columns = 0

    def _length(self, name: str | None) -> int:
        """How many columns a row of this adapter has."""
        own = self.parts.get(name or "")
        return next(iter(own.values())).length if own else 0

    def _enter(self, index: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        self.columns = max(map(self._length, self.routing.active), default=0)
        if not self.columns:
            return None
        states = states_of(args, kwargs)
        self.width = states.shape[1] + self.columns
        return inserted(args, kwargs, self._rows(index, states))

    def _leave(self, index: int, module: nn.Module, args: Args, output: Any) -> Any:
        if not self.columns:
            return None
        output, self.carried[index + 1] = taken_out(output, self.columns)
        # A layer that recomputes in the backward pass may run its hooks again; else nothing should keep the graph.
        if index + 1 == len(self.anatomy.layers) and not getattr(module, "gradient_checkpointing", False):
            self.carried.clear()
        return output

    def _rows(self, index: int, states: Tensor) -> Tensor:
        """The columns (B, n, d) that enter a layer: an adapter's own rows, or those that the layer below gave."""
        batch, width = states.shape[0], states.shape[-1]
        rows = self.carried[index] if index else states.new_zeros(batch, self.columns, width)
        path = self.anatomy.layers[index].path
        for name in self.routing.in_force:
            part = self.parts.get(name, {}).get(path)
            if part is None:
                continue
            own = nn.functional.pad(part().to(states.dtype), (0, 0, 0, self.columns - part.length))  # (n, d)
            if self.routing.covers_all(name):
                return own.expand(batch, -1, -1)
            chosen = self.routing.rows(name, batch, states.device)
            rows = rows.index_copy(0, chosen, own.expand(len(chosen), -1, -1))
        return rows

    def _mask(self, query: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask with the columns in: every query sees those of its own row, and no row sees its padding.

        query (B, H, n + T, d_k); mask (B|1, 1|H, T, T) boolean or additive, or None where all is visible.
        """
        if not self.columns:
            return mask
        batch, sources = query.shape[0], query.shape[2]
        lengths = [self._length(name) for name in self.routing.expanded(batch)]
        if mask is None and min(lengths) == self.columns:
            return None
        number = torch.arange(sources, device=query.device) - 1  # of a column in the prompt
        padding = (number >= torch.tensor(lengths, device=query.device)[:, None]) & (
            number < self.columns
        )  # (B, n + T)
        seen = attention.as_mask(~padding[:, None, None], query.dtype if mask is None else mask.dtype)
        if mask is None:
            return seen
        # Where a mask was given, a column of the prompt sees what the first one sees.
        own = torch.where(number < self.columns, 0, number + 1 - self.columns)
        given = mask.expand(batch, -1, sources - self.columns, -1)[:, :, own][..., own]
        return torch.where((number >= 0) & (number < self.columns), seen, given)

    def given(self, output: Any) -> Any:
        """A base's output whose hidden states all have the image's columns: what enters a layer has more."""
        states = output.get("hidden_states") if self.columns and isinstance(output, ModelOutput) else None
        if states is not None:
            output["hidden_states"] = tuple(
                taken_out(state, self.columns)[0]
                if isinstance(state, Tensor) and state.dim() == 3 and state.shape[1] == self.width
                else state
                for state in states
            )
        return output
