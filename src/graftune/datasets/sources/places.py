"""Where the images of annotations lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from graftune.datasets.values import InvalidValue

IMAGES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ANNOTATIONS: Final = ("annotations", "annotation", "labels")  # folders that stand beside one of images


def hidden(path: Path) -> bool:
    return path.name.startswith(".")


def images(folder: Path) -> list[Path]:
    """The images of a folder in order of their names; hidden files are none."""
    return [one for one in sorted(folder.iterdir()) if one.suffix.lower() in IMAGES and not hidden(one)]


def folders(folder: Path) -> list[Path]:
    """The folders in it in order of their names; hidden ones are none."""
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and not hidden(one)]


def around(folder: Path) -> list[Path]:
    """Where the images of a folder's annotations may lie: in it, below it, or beside it (annotations/, images/)."""
    beside = [folder.parent, *folders(folder.parent)] if folder.name.lower() in ANNOTATIONS else []
    return list(dict.fromkeys([folder, *folders(folder), *beside]))


def as_said(image: Path, width: Any, height: Any) -> None:
    """Raise InvalidValue for an image that has another size than its boxes were drawn on.

    Turned images pass, and what is no readable image: that is said where images are read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as file:
            size = file.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return
    if width and height and sorted(size) != sorted((width, height)):
        raise InvalidValue(f"{image.name} is {size[0]} x {size[1]}, and its boxes are for {width} x {height}")
