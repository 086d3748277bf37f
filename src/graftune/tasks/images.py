"""Images: from a file or bytes to what a base's image processor gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from graftune.datasets import values
from graftune.tasks.features import Features


@dataclass(frozen=True)
class Picture(Features):
    """An encoded image: `pixels` (channels, height, width), and how many patches the base cuts it into."""

    pixels: Tensor = field(default_factory=lambda: torch.empty(0))
    patches: int = 1

    @property
    def length(self) -> int:
        return self.patches


def size(image: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    return values.size(image)


def fitting(image: Path | bytes, config: Any) -> Image.Image:
    """The image with as many channels as the base reads."""
    return values.opened(image).convert("L" if getattr(config, "num_channels", 3) == 1 else "RGB")


def patches(pixels: Tensor, config: Any) -> int:
    """About how many positions an image (channels, height, width) takes."""
    size = getattr(config, "patch_size", None) or 32
    height, width = (size, size) if isinstance(size, int) else size
    return max(1, pixels.shape[1] // height) * max(1, pixels.shape[2] // width)


def stacked(pictures: Sequence[Features]) -> dict[str, Tensor]:
    """`pixel_values` float32 (rows, channels, height, width), zeros behind smaller images; `pixel_mask` says where."""
    pixels = [picture.pixels for picture in pictures if isinstance(picture, Picture)]
    if len({image.shape for image in pixels}) == 1:
        return {"pixel_values": torch.stack(pixels)}
    height, width = (max(image.shape[side] for image in pixels) for side in (1, 2))
    values = pixels[0].new_zeros(len(pixels), pixels[0].shape[0], height, width)
    mask = torch.zeros(len(pixels), height, width, dtype=torch.long)
    for row, image in enumerate(pixels):
        values[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, : image.shape[1], : image.shape[2]] = 1
    return {"pixel_values": values, "pixel_mask": mask}


def same_shape(batch: Mapping[str, Any], *, masked: bool) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The pixels of a batch in groups that a base may see together, each with the numbers of its rows.

    A base that takes a ``pixel_mask`` sees all at once; another would take the padding for a part of the image, so that
    it gets images of one shape at a time, without padding.
    """
    pixels, mask = batch["pixel_values"], batch.get("pixel_mask")
    if mask is None or masked:
        yield list(range(len(pixels))), {name: batch[name] for name in ("pixel_values", "pixel_mask") if name in batch}
        return
    shapes = [(int(own[:, 0].sum()), int(own[0].sum())) for own in mask]
    for shape in sorted(set(shapes)):
        rows = [row for row, own in enumerate(shapes) if own == shape]
        yield rows, {"pixel_values": pixels[rows][:, :, : shape[0], : shape[1]]}


def shown(image: Path | bytes) -> str:
    """How a report names an image."""
    return image.name if isinstance(image, Path) else f"an image of {len(image):,} bytes"
