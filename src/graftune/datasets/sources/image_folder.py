"""A folder with a folder of images for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.errors import GraftuneError

IMAGES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def classes(folder: Path) -> list[Path]:
    """The folders in it that hold images; hidden ones are none."""
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and not _hidden(one) and images(one)]


def images(folder: Path) -> list[Path]:
    """The images of a folder in order of their names; hidden files are none."""
    return [one for one in sorted(folder.iterdir()) if one.suffix.lower() in IMAGES and not _hidden(one)]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def read(folder: Path) -> Records:
    """An image and its label for every image, class by class."""
    found = [(image, one.name) for one in classes(folder) for image in images(one)]
    records = [
        Record(number, {"image": str(image.relative_to(folder)), "label": label})
        for number, (image, label) in enumerate(found, 1)
    ]
    return HeldRecords(records, ["image", "label"], {})


def splits(folder: Path) -> GraftuneError | None:
    """The error for a folder of splits (train/cat/1.png), which holds more than one data set."""
    found = [one.name for one in sorted(folder.iterdir()) if one.is_dir() and classes(one)]
    if not found:
        return None
    return GraftuneError(
        "the folder holds several data sets",
        received=f"{folder} with {', '.join(found)}",
        expected="a folder with a folder of images for each class",
        do=f"name one of them: {folder / found[0]}",
    )
