"""Classification of images by a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graftune.bases.head import Head
from graftune.datasets import values
from graftune.datasets.columns import CLASSES, Columns
from graftune.datasets.rows import Row
from graftune.tasks import images, labels
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.bound_labels import BoundLabels
from graftune.tasks.features import Features, PromptEncoder
from graftune.tasks.labelled import Labelled


@dataclass(frozen=True)
class ImageClassify(Labelled):
    """Input: the path of an image (from the data file's folder) or its bytes; target: its label.

    `labels` are by default all that occur in the training rows.
    """

    labels: tuple[str, ...] | None = None

    name: ClassVar[str] = "image-classify"
    metric: ClassVar[str] = "accuracy"
    processor: ClassVar[str] = "AutoImageProcessor"
    columns: ClassVar[Columns] = Columns(
        ("image", "file", "file_name", "filename", "filepath", "image_path", "path", "input", "img"),
        CLASSES,
        values.image,
        values.label,
    )

    def fit(self, rows: Sequence[Row]) -> Self:
        """Labels: all that occur in `rows`."""
        return replace(self, labels=labels.labels_of((row.target for row in rows), self.labels))

    def problem(self, row: Row) -> str | None:
        return None if row.target in self.known else labels.unknown_label(row.target, self.known)

    def head(self, config: Any) -> Head:
        return Head(self.name, "AutoModelForImageClassification", labels=self.known)

    def bind(self, config: Any, processor: Any) -> BoundTask:
        return BoundImageClassify(self, config, processor, self.known)


class BoundImageClassify(BoundLabels):
    """Classification of images on one base."""

    task: ImageClassify

    def encode(self, row: Row, encoder: PromptEncoder) -> Sequence[Features]:
        """The image as its processor gives it, and one label."""
        picture = images.fitting(row.input, self.config)
        pixels: Tensor = encoder.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        patches = images.patches(pixels, self.config)
        return [images.Picture([], self.number(row), pixels=pixels, patches=patches)]

    def collate(self, features: Sequence[Features], width: int = 0) -> Batch:
        """`pixel_values`, float32 (rows, channels, height, width), and `labels`, int64 (rows,)."""
        return images.stacked(features) | {"labels": torch.tensor([item.labels for item in features])}

    def scores(self, outputs: Any, batch: Batch) -> Tensor:
        return outputs.logits.float()

    def display(self, row: Row) -> str:
        return images.shown(row.input)
