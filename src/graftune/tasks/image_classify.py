"""Classification of images by a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from graftune.datasets import values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import Row
from graftune.model.adapted import AdaptedModel
from graftune.tasks import images, labels
from graftune.tasks.classify import Classify
from graftune.tasks.features import Features, Reading


@dataclass
class ImageClassify(Classify):
    """Input: the path of an image (from the data file's folder) or its bytes; target: its label."""

    pattern: str = field(default="{input}", init=False)

    _config: Any = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "image-classify"
    processor: ClassVar[str] = "AutoImageProcessor"
    columns: ClassVar[Columns] = Columns(
        ("image", "file", "file_name", "path", "input", "img"), ("label", "target", "class"), values.image
    )

    def auto_class(self, config: Any) -> str:
        return "AutoModelForImageClassification"

    def bind(self, config: Any, processor: Any) -> None:
        """How many channels and patches an image has."""
        self._config = config

    def model_arguments(self, processor: Any = None) -> dict[str, Any]:
        return labels.arguments(self.known())

    def encode(self, row: Row, reading: Reading) -> Features:
        """The image as its processor gives it, and one label."""
        picture = images.fitting(row.input, self._config)
        pixels: Tensor = reading.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return images.Picture([], self.index(row), pixels=pixels, patches=images.patches(pixels, self._config))

    def collate(self, features: Sequence[Features], pad_id: int, width: int = 0) -> dict[str, Tensor]:
        """`pixel_values`, float32 (rows, channels, height, width), and `labels`, int64 (rows,)."""
        return images.stacked(features) | {"labels": torch.tensor([item.labels for item in features])}

    def padding(self, model: AdaptedModel, processor: Any) -> int:
        return 0

    def shown(self, row: Row) -> str:
        return images.shown(row.input)
