"""The same text before the plain base and before the base with an adapter on, token by token.

Both sides read the same tokens. What a method adds, virtual tokens in a text or rows beside it, only its own side has,
and nothing is measured there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from graftune.inference.losses import CHUNK_BYTES
from graftune.inference.running import to_device
from graftune.tasks.batches import by_length, inputs, pad
from graftune.tasks.bound import Batch
from graftune.tasks.features import Features
from graftune.training.trained import TrainedAdapter

AT_ONCE: Final = 16  # texts or images in a batch, at most
LOGIT_BYTES: Final = 2**28  # of the base's logits that wait for the adapter's


@dataclass(frozen=True)
class Reading:
    """A text as the adapter reads it, and the places where the two sides are compared.

    `ids` may hold virtual tokens, which the base reads without. `places` are those of `ids`, or of `decoder_ids` where
    there are any; with `ahead` = 1 each stands for the place before it, where a decoder predicts its token. `wanted`
    has the right token of each place, and `amount` is what the sums over the text are divided by.
    """

    row: int
    ids: Sequence[int]
    places: Sequence[int]
    amount: float
    wanted: Sequence[int] = ()
    ahead: int = 0
    type_ids: Sequence[int] | None = None
    decoder_ids: Sequence[int] | None = None


class Sides:
    """The plain base and the base with a trained adapter on. Without dropout: to be used within `evaluating`."""

    def __init__(self, trained: TrainedAdapter) -> None:
        self.model, self.name, self.task = trained.model, trained.name, trained.task
        self.first_virtual_id = trained.encoder.first_virtual_id

    @property
    def has_words(self) -> bool:
        """Whether the base has a head over its vocabulary, as language models have."""
        return self.model.base.get_output_embeddings() is not None

    @property
    def fills_gaps(self) -> bool:
        """Whether the base is a masked language model."""
        base = self.model.base
        return self.has_words and not base.config.is_encoder_decoder and not base.can_generate()

    def is_virtual(self, token: int) -> bool:
        """Whether an id stands for a virtual token."""
        return 0 < self.first_virtual_id <= token

    def divergence(self, readings: Sequence[Reading]) -> np.ndarray:
        """Σ over places of KL(base || adapted) = Σ_v p(v) · (ln p(v) - ln q(v)), in nats, float64 (readings,)."""

        def divergence(base: Tensor, adapted: Tensor, wanted: Tensor) -> Tensor:
            chances = base.exp()
            return torch.where(chances > 0, chances * (base - adapted), 0.0).sum(-1, keepdim=True)

        return self._over_vocabulary(readings, divergence)[:, 0]

    def surprise(self, readings: Sequence[Reading]) -> np.ndarray:
        """Σ over places of -ln p(wanted) and of -ln q(wanted), in nats, float64 (readings, 2): base, adapted."""

        def surprise(base: Tensor, adapted: Tensor, wanted: Tensor) -> Tensor:
            return -torch.cat([side.gather(1, wanted[:, None]) for side in (base, adapted)], 1)

        return self._over_vocabulary(readings, surprise)

    def turned(self, readings: Sequence[Reading]) -> np.ndarray:
        """Σ over places of 1 - cos(h, h′) of the last hidden states of both sides, float64 (readings,)."""

        def compare(own: Sequence[Reading]) -> Tensor:
            return _turned(*(self._at_places(own, adapter) for adapter in (None, self.name)))[:, None]

        return self._each(readings, compare, AT_ONCE)[:, 0]

    def turned_images(self, images: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """As `turned` over all states of images (channels, height, width), and how many these are; (images,) both."""
        sums, counts = np.zeros(len(images)), np.zeros(len(images))
        for shape in sorted({tuple(image.shape) for image in images}):  # padding would count as a part of an image
            alike = [i for i, image in enumerate(images) if tuple(image.shape) == shape]
            for start in range(0, len(alike), AT_ONCE):
                some = alike[start : start + AT_ONCE]
                pixels = torch.stack([images[i] for i in some])
                found = _turned(*(self._image_states(pixels, adapter) for adapter in (None, self.name)))
                sums[some], counts[some] = found.sum(1).cpu().numpy(), found.shape[1]
        return sums, counts

    def _over_vocabulary(
        self, readings: Sequence[Reading], figures: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> np.ndarray:
        """Σ over places of what `figures` makes of log p, log q (n, V) and the wanted tokens (n,): (n, figures).

        The base's logits of a batch are held, the adapter's are made for a few places at a time.
        """
        vocabulary: int = self.model.base.get_input_embeddings().weight.shape[0]
        chunk = max(1, CHUNK_BYTES // (4 * vocabulary))

        def compare(own: Sequence[Reading]) -> Tensor:
            # A head answers for the side of the last call.
            base = [self.model.score(part) for part in self._at_places(own, None).split(chunk)]
            states = self._at_places(own, self.name)
            wanted = torch.tensor([token for one in own for token in one.wanted or [0] * len(one.places)])
            found = []
            for plain, part, tokens in zip(base, states.split(chunk), wanted.split(chunk), strict=True):
                p, q = (logits.log_softmax(-1, dtype=torch.float32) for logits in (plain, self.model.score(part)))
                found.append(figures(p, q, tokens.to(part.device)))
            return torch.cat(found)

        longest = max((len(reading.places) for reading in readings), default=1)
        return self._each(readings, compare, LOGIT_BYTES // (4 * vocabulary * longest))

    def _each(
        self, readings: Sequence[Reading], compare: Callable[[Sequence[Reading]], Tensor], size: int
    ) -> np.ndarray:
        """The sums over each reading's places of what `compare` gives for the places of a batch, one after another."""
        parts: dict[int, Tensor] = {}
        for indices in by_length([len(reading.ids) for reading in readings], min(AT_ONCE, max(1, size))):
            own = [readings[i] for i in indices]
            found = compare(own).double().cpu().split([len(reading.places) for reading in own])
            parts |= {i: values.sum(0) for i, values in zip(indices, found, strict=True)}
        return torch.stack([parts[i] for i in range(len(readings))]).numpy()

    def _at_places(self, readings: Sequence[Reading], adapter: str | None) -> Tensor:
        """The last hidden states (n, d) of a side at the readings' places; of a language model those its head reads."""
        features, rows, places = [], [], []
        for row, one in enumerate(readings):
            kept = [i for i, token in enumerate(one.ids) if adapter is not None or not self.is_virtual(token)]
            types = None if one.type_ids is None else [one.type_ids[i] for i in kept]
            features.append(Features([one.ids[i] for i in kept], None, type_ids=types))
            now = {before: place for place, before in enumerate(kept)}
            rows += [row] * len(one.places)
            places += [place if one.decoder_ids is not None else now[place] - one.ahead for place in one.places]
        batch: Batch = inputs(features, self.task.pad_id)
        if targets := [one.decoder_ids for one in readings if one.decoder_ids is not None]:
            batch["decoder_input_ids"] = pad(targets, self.task.pad_id)
        batch = to_device(batch, self.model)
        return self._last_states(batch, adapter)[rows, places]

    def _last_states(self, batch: Batch, adapter: str | None) -> Tensor:
        """The last hidden states (B, T, d): of a language model those its head reads.

        Of an encoder-decoder with another head its encoder's, whose columns are the text's.
        """
        if self.has_words:
            return self.model.hidden(**batch, adapters=adapter)
        output = self.model(**batch, output_hidden_states=True, adapters=adapter)
        layers = output.get("hidden_states")
        states: Tensor = output["encoder_last_hidden_state"] if layers is None else layers[-1]
        return states

    def _image_states(self, pixels: Tensor, adapter: str | None) -> Tensor:
        """What the base's body gives its head (B, N, d), behind its last norm."""
        read: list[Any] = []
        handle = self.model.base.base_model.register_forward_hook(lambda body, args, output: read.append(output))
        try:
            self.model(**to_device({"pixel_values": pixels}, self.model), adapters=adapter)
        finally:
            handle.remove()
        states: Tensor = read[-1].last_hidden_state
        return states


def _turned(base: Tensor, adapted: Tensor) -> Tensor:
    """1 - cos of the angle between vectors (…, d): (…)."""
    return 1 - nn.functional.cosine_similarity(base.double(), adapted.double(), dim=-1)
