"""YOLO: a folder of images, beside it one of labels, a text file for each image, and the names of the classes.

A line of a text file is a class's number and a box in shares of the image: the middle's x and y, width and height.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from graftune.datasets.sources.places import images
from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.sources.text import whole
from graftune.datasets.values import InvalidValue, size
from graftune.errors import GraftuneError

NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
SPLITS: Final = ("train", "training")


def place(folder: Path) -> Path | None:
    """The folder of images that have labels: this one, images in it, or those to train on, where there are splits."""
    inner = [folder, folder / "images", *(folder / split / "images" for split in SPLITS)]
    inner += [folder / "images" / split for split in SPLITS]
    return next((one for one in inner if one.is_dir() and _labelled(one)), None)


def _labelled(folder: Path) -> bool:
    beside = labels(folder)
    return any((beside / f"{image.stem}.txt").is_file() for image in images(folder))


def labels(folder: Path) -> Path:
    """The folder of labels: the last `images` in the path becomes `labels`."""
    parts = list(folder.absolute().parts)
    if "images" not in parts:
        return folder
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def read(folder: Path) -> Records:
    """The images in order of their names; one without a file of labels has no objects."""
    folder = folder.absolute()
    names, beside = class_names(folder), labels(folder)
    records: list[Record] = []
    problems: dict[int, str] = {}
    for number, image in enumerate(images(folder), 1):
        file = beside / f"{image.stem}.txt"
        try:
            objects = _objects(file, names, image) if file.exists() else []
        except InvalidValue as error:
            problems[number] = f"{file.name}: {error}"
        else:
            records.append(Record(number, {"image": str(image), "objects": objects}))
    return HeldRecords(records, ["image", "objects"], problems)


def class_names(folder: Path) -> list[str]:
    """The names of the classes, from a file in the folder or above it. Raises GraftuneError for none."""
    places = [folder, labels(folder), *list(folder.absolute().parents)[:3]]
    found = next((place / name for place in places for name in NAMES if (place / name).is_file()), None)
    names: Any = None
    if found is not None:
        text = whole(found, str(found))
        names = yaml.safe_load(text) if found.suffix in (".yaml", ".yml") else text.split("\n")
        names = names.get("names") if isinstance(names, dict) else names
        names = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
    if not isinstance(names, list) or not names:
        raise GraftuneError(
            "the names of the classes are not known",
            received=f"{found or folder} without names",
            expected=f"{', '.join(NAMES)} beside the images or above them",
            do="write data.yaml with the line: names: [cat, dog]",
        )
    return [str(name).strip() for name in names if str(name).strip()]


def _objects(file: Path, names: list[str], image: Path) -> list[dict[str, Any]]:
    width, height = size(image)
    found = []
    for line in whole(file, str(file)).split("\n"):
        if not (fields := line.split()):
            continue
        try:
            number, (x, y, w, h) = int(fields[0]), map(float, fields[1:5])
        except ValueError as error:
            raise InvalidValue(f"{line.strip()!r} is no class and four numbers") from error
        if len(fields) > 6 or not 0 <= number < len(names):
            raise InvalidValue(f"{line.strip()!r} is no box of one of {len(names)} classes")
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        found.append({"label": names[number], "box": _inside(box, width, height)})
    return found


def _inside(box: list[float], width: int, height: int) -> list[float]:
    """The box without what rounding put outside of the image, at most a pixel."""
    limits = (width, height, width, height)
    return [
        min(max(edge, 0.0), limit) if -1 <= edge <= limit + 1 else edge for edge, limit in zip(box, limits, strict=True)
    ]
