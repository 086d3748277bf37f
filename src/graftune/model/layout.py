"""Layout: where the virtual tokens of each row stand in the batch.

A virtual token is an id at or above the number of embedding rows. A template may put it anywhere; rows whose
adapter has virtual tokens but whose text holds none get them in front of the text. The base itself only
ever sees ids of its vocabulary: a placeholder stands where a virtual token is, and ``virtual`` remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from graftune.errors import GraftuneError


@dataclass(frozen=True)
class Arranged:
    """A batch with its virtual tokens in place.

    ``inputs`` holds the widened tensors (B, T + n), ``virtual`` (B, T + n) is the row of the adapter's table
    or -1, ``kept`` (B, T) the column where each of the caller's columns now stands.
    """

    inputs: dict[str, Tensor]
    virtual: Tensor
    kept: Tensor
    added: int

    @property
    def moved(self) -> bool:
        """Whether any of the caller's columns stands elsewhere now."""
        columns = torch.arange(self.kept.shape[1], device=self.kept.device)
        return bool(self.added) or not bool((self.kept == columns).all())


class Layout:
    """The virtual tokens of the current batch, for the hook on the embedding."""

    def __init__(self) -> None:
        self.virtual: Tensor | None = None
        self.kept: Tensor | None = None

    @property
    def added(self) -> int:
        """How many columns of virtual tokens were added to the caller's."""
        return 0 if self.kept is None or self.virtual is None else self.virtual.shape[1] - self.kept.shape[1]

    def virtual_of(self, embedded: Tensor) -> Tensor | None:
        """The map for embeddings (B, T, d), or None for a step that only holds new tokens of a cached run.

        Beams repeat the rows; a run without a cache sees the whole text again, longer each time.
        """
        if self.virtual is None or embedded.shape[1] < self.virtual.shape[1]:
            return None
        times = embedded.shape[0] // self.virtual.shape[0]
        virtual = self.virtual.repeat_interleave(times, dim=0)
        return torch.nn.functional.pad(virtual, (0, embedded.shape[1] - virtual.shape[1]), value=-1)

    def given(self, hidden: Tensor) -> Tensor:
        """The caller's columns of hidden states (B, T + n, d): (B, T, d)."""
        if self.kept is None or self.kept.shape[1] == hidden.shape[1]:
            return hidden
        return hidden.gather(1, self.kept[..., None].expand(-1, -1, hidden.shape[-1]))


Place = Literal["front", "front, padding behind", "behind the first"]
#: Arguments that hold column numbers, and the outputs (B, T) that have an entry a column.
COLUMNS = ("start_positions", "end_positions")
SPANS = ("start_logits", "end_logits")
FILL: Mapping[str, int] = {"labels": -100, "shift_labels": -100}


def arrange(
    inputs: Mapping[str, Tensor],
    counts: Sequence[int],
    embeddings: int,
    *,
    place: Place,
    padding: int | None = None,
) -> Arranged:
    """Put virtual tokens in place.

    ``inputs`` has ``input_ids`` (B, T) and may have ``attention_mask``, ``labels`` and other (B, T) tensors;
    ``counts[b]`` is the number of virtual tokens row b's adapter has. ``place``: "front" of the text, with padding
    before both (decoders); "front, padding behind" both, since an encoder may count columns as positions
    (encoder-decoders); "behind the first" token, which may be pooled (encoders). ``padding`` is the base's padding
    token: what is added behind a row is padding, and what stands for a virtual token must not be.

    Raises GraftuneError where a row's own virtual tokens do not match its adapter.
    """
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    placed = ids >= embeddings
    missing = [0 if bool(placed[b].any()) else counts[b] for b in range(len(counts))]
    _check(placed, ids, counts, embeddings)
    added = max(missing, default=0)
    batch, width = ids.shape
    kept = torch.arange(width, device=ids.device).expand(batch, width).clone()
    virtual = torch.full((batch, width + added), -1, device=ids.device)
    fresh = torch.zeros(batch, width + added, dtype=torch.bool, device=ids.device)  # new virtual columns
    for b, n in enumerate(missing):
        start = int(real[b].int().argmax())  # first real token
        if place == "front, padding behind":
            text = real[b].long()
            kept[b] = torch.where(real[b], n + text.cumsum(0) - 1, n + text.sum() + (1 - text).cumsum(0) - 1)
            begin = 0
        elif place == "behind the first":
            kept[b, start + 1 :] += n
            begin = start + 1
        else:
            # Everything from the first real token on moves to the right end; padding stays in front of it.
            kept[b, start:] += added
            begin = start + added - n
        fresh[b, begin : begin + n] = True
        virtual[b, begin : begin + n] = torch.arange(n, device=ids.device)
    virtual.scatter_(1, kept, torch.where(placed, ids - embeddings, virtual.gather(1, kept)))

    def widen(name: str, value: Tensor) -> Tensor:
        wide = value.new_full((batch, width + added), FILL.get(name, 0))
        wide.scatter_(1, kept, value)
        return wide

    # In vocabulary, and already in the row's text, so that a repetition penalty is not changed by it.
    first = (real & ~placed & (ids != (-1 if padding is None else padding))).int()
    other = 0 if padding != 0 else 1
    stand_in = ids.gather(1, first.argmax(1, keepdim=True)).where(first.any(1, keepdim=True), other)
    result: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if name in COLUMNS:
            result[name] = _moved(value, kept, added)
        elif name == "logits_to_keep":  # columns of all rows, and those of decoders all move alike
            result[name] = value + added if value.dim() else value
        elif value.shape != ids.shape or (name == "labels" and value.is_floating_point()):
            result[name] = value  # not one entry a token; labels of classes may happen to have that shape
        else:
            result[name] = widen(name, value)
    if added and mask is None:
        result["attention_mask"] = widen("attention_mask", torch.ones_like(ids))
    if "attention_mask" in result:
        result["attention_mask"] = result["attention_mask"].masked_fill(fresh, 1)
    covered = torch.zeros_like(virtual, dtype=torch.bool).scatter_(1, kept, True)
    # Behind a row it is padding, which some bases count by; in front of one nothing counts it, but penalties do.
    behind = stand_in if padding is None or place == "front" else torch.full_like(stand_in, padding)
    wide = torch.where(covered, result["input_ids"], behind)
    result["input_ids"] = torch.where(virtual >= 0, stand_in, wide)
    return Arranged(result, virtual, kept, added)


def _moved(columns: Tensor, kept: Tensor, added: int) -> Tensor:
    """Column numbers, one a row, where these columns now stand; those outside the batch stay outside."""
    width = kept.shape[1]
    inside = columns.view(len(kept), -1).clamp(0, width - 1)
    return torch.where(columns < width, kept.gather(1, inside).view_as(columns), columns + added)


def _check(placed: Tensor, ids: Tensor, counts: Sequence[int], embeddings: int) -> None:
    for b, count in enumerate(counts):
        highest = int(ids[b].max()) - embeddings + 1
        if bool(placed[b].any()) and highest > count:
            raise GraftuneError(
                f"row {b} holds virtual tokens that its adapter does not have",
                received=f"virtual token number {highest}",
                expected=f"at most {count} virtual tokens",
                do="use the template the adapter was trained with, or another adapter for this row",
            )


def restore(output: Any, arranged: Arranged, batch: int) -> Any:
    """Give every per-token tensor of a model's output the caller's columns again."""
    if not arranged.moved:
        return output
    encoder_only = "encoder_last_hidden_state" in output  # the decoder's columns are the caller's
    width = arranged.kept.shape[1] + arranged.added

    def back(value: Any, least: int = 3) -> Any:
        # Scores of classes (B, C) may happen to have as many entries as there are columns.
        if isinstance(value, Tensor) and value.dim() >= least and value.shape[:2] == (batch, width):
            index = arranged.kept.view(*arranged.kept.shape, *[1] * (value.dim() - 2))
            return value.gather(1, index.expand(-1, -1, *value.shape[2:]))
        return value

    for name, value in output.items():
        if encoder_only and not name.startswith("encoder_"):
            continue
        if name.endswith("hidden_states") and isinstance(value, tuple):
            output[name] = tuple(back(v) for v in value)
        elif isinstance(value, Tensor):
            output[name] = back(value, 2 if name in SPANS else 3)
    return output
