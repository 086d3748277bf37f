"""A folder with a folder of images for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graftune.datasets.sources.places import folders, images
from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.errors import GraftuneError

METADATA: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SPLITS: Final = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")


def metadata(folder: Path) -> Path | None:
    """The file that says more of the images in a folder."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def classes(folder: Path) -> list[Path]:
    """The folders in it that hold images: none where they are splits, or say themselves what their images are."""
    found = [one for one in folders(folder) if images(one)]
    if any(metadata(one) for one in found) or all(one.name.lower() in SPLITS for one in found):
        return []
    return found


def read(folder: Path) -> Records:
    """An image and its label for every image, class by class."""
    found = [(image, one.name) for one in classes(folder) for image in images(one)]
    records = [
        Record(number, {"image": str(image.relative_to(folder)), "label": label})
        for number, (image, label) in enumerate(found, 1)
    ]
    return HeldRecords(records, ["image", "label"], {})


def splits(folder: Path) -> list[Path]:
    """The folders in it that are data sets of their own: train/cat/1.png, or train/metadata.jsonl."""
    return [one for one in folders(folder) if classes(one) or metadata(one)]


def several(folder: Path, found: list[Path]) -> GraftuneError:
    """The error for a folder that holds more than one data set."""
    likely = next((one for one in found if "train" in one.name.lower()), found[0])
    return GraftuneError(
        "the folder holds several data sets" if len(found) > 1 else "the data set lies further down",
        received=f"{folder} with {', '.join(str(one.relative_to(folder)) for one in found)}",
        expected="one data set",
        do=f"name one of them: {likely}" if len(found) > 1 else f"name it: {likely}",
    )
