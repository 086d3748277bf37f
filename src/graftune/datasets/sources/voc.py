"""Pascal VOC: a folder of .xml files, each with its image beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from graftune.datasets.sources.image_folder import IMAGES
from graftune.datasets.sources.records import HeldRecords, Record, Records


def read(folder: Path) -> Records:
    """The .xml files in order of their names."""
    records: list[Record] = []
    problems: dict[int, str] = {}
    beside = {image.stem: image.name for image in sorted(folder.iterdir()) if image.suffix.lower() in IMAGES}
    for number, file in enumerate(sorted(folder.glob("*.xml")), start=1):
        try:
            root = ElementTree.parse(file).getroot()
            objects = [
                {
                    "label": (one.findtext("name") or "").strip(),
                    "box": [float(one.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")],
                }
                for one in root.iter("object")
            ]
        except (ElementTree.ParseError, ValueError, OSError) as error:
            problems[number] = f"{file.name}: not a Pascal VOC file ({error})"
            continue
        image = beside.get(file.stem) or root.findtext("filename") or f"{file.stem}.jpg"
        records.append(Record(number, {"image": image, "objects": objects}))
    return HeldRecords(records, ["image", "objects"], problems)
