"""Forgetting: how far a base with an adapter on has moved from the plain base, on the task's inputs and elsewhere.

The plain base is what it is compared with, never the untrained adapter. The base itself forgets nothing: without the
adapter all is as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from graftune.comparison import neutral
from graftune.comparison.sides import Reading, Sides
from graftune.datasets.rows import Row
from graftune.inference.running import evaluating
from graftune.tasks.features import Features, TooLong
from graftune.tasks.images import Picture
from graftune.tasks.writing import BoundWriting
from graftune.training.prepare import Experiment
from graftune.training.trained import TrainedAdapter

Item = TypeVar("Item")

INPUTS: Final = 200  # of the evaluation rows, spread evenly
PLACES: Final = 512  # of one input, spread evenly
BY_CHANCE: Final = 8.0  # bits that a byte costs who knows nothing


@dataclass(frozen=True)
class Sums:
    """A figure of each row as a sum and what it is divided by, float64 (rows,) both; 0 and 0 for a row left out.

    Drawing rows with replacement and dividing the drawn sums by the drawn counts gives an interval for `mean`.
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """Σ sums / Σ counts, so that long rows weigh more than short ones."""
        return float(self.sums.sum() / self.counts.sum())


@dataclass(frozen=True)
class Forgetting:
    """What was measured, each as sums by row or passage; None where the base or the method lets nothing be measured.

    `kl_task`: KL(base || adapted) of the next tokens, in nats, over tokens of the task's evaluation inputs; it predicts
    forgetting (Shenfeld et al. 2025, arXiv:2509.04259). `drift`: 1 - cos of the last hidden states there, for bases
    without words. `base_bits` and `adapted_bits`: what neutral passages cost both sides in bits, over their UTF-8 bytes
    (Gao et al. 2020, arXiv:2101.00027, section 3.1), which compares across tokenizers.
    """

    kl_task: Sums | None = None
    drift: Sums | None = None
    base_bits: Sums | None = None
    adapted_bits: Sums | None = None

    @property
    def means(self) -> dict[str, float]:
        """`kl_task` (nats per token), `drift` (0 to 2), `bits_per_byte` of the plain base, and the adapter's change."""
        found = {"kl_task": self.kl_task, "drift": self.drift, "bits_per_byte": self.base_bits}
        means = {name: sums.mean for name, sums in found.items() if sums is not None}
        if self.base_bits is not None and self.adapted_bits is not None:
            means["bits_per_byte_change"] = self.adapted_bits.mean - self.base_bits.mean
        return means


def forgetting(
    trained: TrainedAdapter, experiment: Experiment, texts: Sequence[str], inputs: int = INPUTS
) -> Forgetting:
    """What the adapter changes on some of the evaluation inputs and on neutral texts.

    A method that is not trained changes nothing in the base, and nothing is measured.
    """
    if not trained.model.adapter(trained.name).method.trainable:
        return Forgetting()
    sides = Sides(trained)
    rows = _spread(experiment.tables.eval.rows, inputs)
    with evaluating(trained.model):
        if not sides.has_words:
            return Forgetting(drift=_drift(sides, trained, rows))
        kl = _kl(sides, trained, rows)
        base, adapted = _bits(sides, trained, texts)
    return Forgetting(kl_task=kl, base_bits=base, adapted_bits=adapted)


def _summed(readings: Sequence[Reading], found: np.ndarray, rows: int) -> Sums:
    """The figures (readings,) by the rows that the readings, of which there are some, are of."""
    of = [reading.row for reading in readings]
    counts = np.bincount(of, weights=[reading.amount for reading in readings], minlength=rows)
    return Sums(np.bincount(of, weights=found, minlength=rows), counts)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most that many of the items, spread evenly over all."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


# On the task's inputs ---------------------------------------------------------------------------------------


def _kl(sides: Sides, trained: TrainedAdapter, rows: Sequence[Row]) -> Sums | None:
    readings = [_reading(sides, number, one) for number, one in _inputs(trained, rows)]
    return _summed(readings, sides.divergence(readings), len(rows)) if readings else None


def _drift(sides: Sides, trained: TrainedAdapter, rows: Sequence[Row]) -> Sums | None:
    found = list(_inputs(trained, rows))
    images = [one.pixels for _, one in found if isinstance(one, Picture)]
    if images:
        return Sums(*sides.turned_images(images))
    readings = [_reading(sides, number, one) for number, one in found]
    return _summed(readings, sides.turned(readings), len(rows)) if readings else None


def _inputs(trained: TrainedAdapter, rows: Sequence[Row]) -> Iterator[tuple[int, Features]]:
    """What the adapter reads of each row that fits, with the row's number; a decoder without the answer."""
    task = trained.task
    for number, row in enumerate(rows):
        try:
            if isinstance(task, BoundWriting) and not task.is_encoder_decoder:
                yield number, Features(task.prompt(row, trained.encoder).ids, None)
            else:
                yield from ((number, one) for one in task.encode(row, trained.encoder))
        except TooLong:
            continue


def _reading(sides: Sides, number: int, one: Features) -> Reading:
    """The input with the places where both sides say something.

    Of an encoder-decoder those of its decoder, which reads the reference; of a masked language model the masked place.
    """
    task, decoder_ids = sides.task, None
    if isinstance(task, BoundWriting) and task.targets is not None:
        decoder_ids = task.targets.decoder_inputs(one.labels)
        places = list(range(len(decoder_ids)))
    elif sides.fills_gaps:
        places = [i for i, token in enumerate(one.ids) if token == task.processor.mask_token_id]
    else:
        places = [i for i, token in enumerate(one.ids) if not sides.is_virtual(token)]
    places = _spread(places, PLACES)
    return Reading(number, one.ids, places, len(places), type_ids=one.type_ids, decoder_ids=decoder_ids)


# On neutral passages ----------------------------------------------------------------------------------------


def _bits(sides: Sides, trained: TrainedAdapter, texts: Sequence[str]) -> tuple[Sums | None, Sums | None]:
    """What the passages cost the base and the base with the adapter on: bits over bytes.

    What a base never knew it cannot forget, and it would drown the rest: a passage that the plain base finds harder
    than bytes by chance, such as Chinese for a base that has read English, is left out.
    """
    readings = neutral.readings(sides, trained, texts)
    if not readings:
        return None, None
    bits = sides.surprise(readings) / math.log(2)
    known = [i for i, one in enumerate(readings) if bits[i, 0] < BY_CHANCE * one.amount]
    if not known:
        return None, None
    readings, bits = [readings[i] for i in known], bits[known]
    return _summed(readings, bits[:, 0], len(texts)), _summed(readings, bits[:, 1], len(texts))
