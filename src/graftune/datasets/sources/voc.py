"""Pascal VOC: a folder of .xml files, each with its image beside it, or in a folder beside theirs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from graftune.datasets.sources.places import around, as_said, images
from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.values import InvalidValue


def place(folder: Path) -> Path | None:
    """The folder with the .xml files: this one, or Annotations in it."""
    places = [folder, folder / "Annotations", folder / "annotations"]
    return next((one for one in places if any(one.glob("*.xml"))), None)


def read(folder: Path) -> Records:
    """The .xml files in order of their names."""
    records: list[Record] = []
    problems: dict[int, str] = {}
    known: dict[str, Path] = {}
    for near in reversed(around(folder.absolute())):  # the nearest wins
        known |= {image.stem: image for image in images(near)}
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
            image = Path(known.get(file.stem) or root.findtext("filename") or f"{file.stem}.jpg")
            as_said(image, *(int(root.findtext(f"size/{side}") or 0) for side in ("width", "height")))
        except InvalidValue as error:
            problems[number] = f"{file.name}: {error}"
            continue
        except (ElementTree.ParseError, ValueError, OSError) as error:
            problems[number] = f"{file.name}: not a Pascal VOC file ({error})"
            continue
        records.append(Record(number, {"image": str(image), "objects": objects}))
    return HeldRecords(records, ["image", "objects"], problems)
