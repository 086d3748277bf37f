"""Positions: how many tokens a base can count, read off its tables as one short run uses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from graftune.errors import GraftuneError
from graftune.model.trace import dummy_inputs

#: How many tokens the run has on either side of an encoder-decoder: their tables are told apart by it.
TEXT, TARGET = 3, 2


@dataclass(frozen=True)
class Positions:
    """How many positions a text and, in an encoder-decoder, a target can use; None where nothing limits them."""

    text: int | None
    target: int | None = None


class _Lookups(TorchDispatchMode):
    """Notes the lookups of consecutive rows in a table: by number of tokens, how many of its rows they may use."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        table, rows = None, None
        if func is torch.ops.aten.embedding.default:
            table, rows = args[0], args[1]
        elif func is torch.ops.aten.index_select.default and args[1] == 0:
            table, rows = args[0], args[2]
        if isinstance(rows, Tensor) and table is not None and table.dim() == 2 and not rows.is_meta:
            self._note(table.shape[0], rows.reshape(-1, rows.shape[-1]) if rows.dim() else rows.reshape(1, 1))
        return func(*args, **(kwargs or {}))

    def _note(self, height: int, rows: Tensor) -> None:
        tokens = rows.shape[-1]
        if tokens in (TEXT, TARGET) and len(rows) == 1 and bool((rows.diff() == 1).all()):
            room = height - int(rows[0, 0])
            self.rooms[tokens] = min(room, self.rooms.get(tokens, room))


def read_positions(base: PreTrainedModel) -> Positions:
    """The positions of a base.

    Rows of its position table less those in front of the first token's (padding, an offset); without a table what
    its config says, if it turns its states by their positions (RoPE) or computes a table; else None (T5, ALiBi).
    """
    if base.main_input_name != "input_ids":
        return Positions(None)
    inputs = dummy_inputs(base)
    padding = getattr(base.config.get_text_config(), "pad_token_id", None)
    ids = inputs["input_ids"][0]
    values = [int(padding == 0)] if ids.is_meta else ids.tolist()  # a base without weights is only measured
    id = next((value for value in values if value != padding), 0)
    paired = base.config.is_encoder_decoder
    inputs = {name: value.new_full((1, TEXT), 1) for name, value in inputs.items()}  # masks
    inputs["input_ids"].fill_(id)
    if paired:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :TARGET]
    training = base.training
    base.eval()
    try:
        with torch.no_grad(), _Lookups() as lookups:
            base(**inputs)
    finally:
        base.train(training)
    said = _said(base)
    text, target = lookups.rooms.get(TEXT), lookups.rooms.get(TARGET)
    if text is None and target is None:
        return Positions(said, said if paired else None)
    return Positions(text, target)


def _said(base: PreTrainedModel) -> int | None:
    """The positions in the config, where something in the base depends on how many there are."""
    config = base.config.get_text_config()
    said: int | None = getattr(config, "max_position_embeddings", None)
    if said is None or said < 1:
        return None
    buffers = dict(base.named_buffers())
    turns = bool(getattr(config, "rope_parameters", None)) or any("inv_freq" in name for name in buffers)
    tables = [b for b in buffers.values() if b.is_floating_point() and b.dim() == 2]
    return said if turns or any(said <= table.shape[0] <= said + 8 for table in tables) else None


def refuse_longer(limit: int, used: Callable[[], int], most: int, *, what: str, added: int = 0, shift: int = 0) -> None:
    """Raise GraftuneError for a text that uses more positions than there are.

    ``most`` is what it can use at most; only where that is too much, ``used`` counts what it does use. ``added``
    and ``shift`` are the virtual tokens and the offset of positions that an adapter brings along.
    """
    if most <= limit or (count := used()) <= limit:
        return
    beside = [f"{added} of them virtual tokens"] * bool(added) + [f"{shift} of them skipped by the adapter"] * bool(
        shift
    )
    raise GraftuneError(
        f"the {what} is longer than the base has positions",
        received=", ".join([f"{count} positions", *beside]),
        expected=f"at most {limit} positions",
        do=f"cut it to {max(limit - added - shift, 0)} tokens",
    )
