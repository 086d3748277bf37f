"""Usual learning rates: what a method is trained with where nobody says it, and where a search for its rate begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["encoder", "decoder", "encoder-decoder", "vision"]

#: What the rates of a method are given for; they are scaled from there.
WIDTH, BATCH, STEPS = 768, 16, 300
SPACING, WIDE = 10**0.5, 10**0.75  # from one rate of a search to the next
FALL = 0.25  # 79 times the steps go with a rate 3.1 times lower (fair sweeps of LoRA over sizes of data)


def rates(
    encoder: float, *, decoder: float | None = None, encoder_decoder: float | None = None, vision: float | None = None
) -> Mapping[Kind, float]:
    """Peak rates of AdamW by the kind of the base; what is left out is as for encoders."""
    return {
        "encoder": encoder,
        "decoder": encoder if decoder is None else decoder,
        "encoder-decoder": encoder if encoder_decoder is None else encoder_decoder,
        "vision": encoder if vision is None else vision,
    }


#: Of a new head that is one linear map, whatever else is trained beside it, and of one that is several.
HEADS, DEEP_HEADS = rates(2e-2), rates(3e-3)


@dataclass(frozen=True)
class Conditions:
    """What a usual rate depends on: the base's kind, hidden size and head, rows of a step and steps of a run."""

    kind: Kind
    width: int
    batch_size: int = BATCH
    steps: int = STEPS
    deep_head: bool = False
    """Whether the head is of several linear maps, as those of detectors are."""

    def scale(self, *, falls_with_width: bool = True) -> float:
        """Times a rate for width 768, 16 rows and 300 steps: √(768/d) · √(B/16) · (300/T)^¼."""
        width = (WIDTH / self.width) ** 0.5 if falls_with_width else 1.0
        batch = (self.batch_size / BATCH) ** 0.5
        return width * batch * (STEPS / self.steps) ** FALL


def head_rate(on: Conditions) -> float:
    """The usual peak rate of a new head."""
    return (DEEP_HEADS if on.deep_head else HEADS)[on.kind] * on.scale()
