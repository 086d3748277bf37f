"""COCO: images, annotations and categories in one document, the images beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graftune.datasets.sources.places import around, as_said
from graftune.datasets.sources.records import HeldRecords, Record, Records
from graftune.datasets.values import InvalidValue


def is_coco(document: Mapping[str, Any]) -> bool:
    """Whether a document has COCO's three lists."""
    return all(isinstance(document.get(name), list) for name in ("images", "annotations", "categories"))


def records(document: Mapping[str, Any], folder: Path) -> Records:
    """A record for each image: its file, and its objects. Crowds (iscrowd) are left out: COCO trains without them.

    Objects of images that are not listed are one more bad line.
    """
    names: dict[Any, Any] = {}
    for category in _mappings(document["categories"]):
        names[_key(category.get("id"))] = category.get("name")
    objects: dict[Any, list[dict[str, Any]]] = {}
    crowds = 0
    for one in _mappings(document["annotations"]):
        if one.get("iscrowd"):
            crowds += 1
        else:
            objects.setdefault(_key(one.get("image_id")), []).append(one)
    found: list[Record] = []
    problems: dict[int, str] = {}
    places = [folder.absolute()]
    for number, image in enumerate(document["images"], 1):
        try:
            found.append(Record(number, _record(image, names, objects, places)))
        except InvalidValue as error:
            problems[number] = str(error)
    listed = {_key(image.get("id")) for image in _mappings(document["images"])}
    if strange := [image for image in objects if image not in listed]:
        shown = ", ".join(strange[:3]) + ", …" * (len(strange) > 3)
        problems[len(document["images"]) + 1] = (
            f"objects of {len(strange)} images that are not listed (image_id {shown})"
        )
    records = HeldRecords(found, ["image", "objects"], problems)
    records.remarks = (f"{crowds} crowds (iscrowd) are left out",) * bool(crowds)
    return records


def _record(
    image: Any, names: Mapping[Any, Any], objects: Mapping[Any, list[dict[str, Any]]], places: list[Path]
) -> dict[str, Any]:
    if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
        raise InvalidValue('an image without "file_name"')
    own = []
    for one in objects.get(_key(image.get("id")), ()):
        category = _key(one.get("category_id"))
        if category not in names:
            raise InvalidValue(f"an object of the category {category}, which is not listed")
        own.append({"label": names[category], "bbox": one.get("bbox")})
    place = _found(image["file_name"], places)
    as_said(place, image.get("width"), image.get("height"))
    return {"image": str(place), "objects": own}


def _found(name: str, places: list[Path]) -> Path:
    """The file beside the document, in a folder beside it, or in one beside its folder: annotations/ and images/."""
    if len(places) == 1 and not (places[0] / name).exists():
        places += around(places[0])[1:]
    return next((place / name for place in places if (place / name).exists()), Path(name))


def _mappings(values: list[Any]) -> Iterator[dict[str, Any]]:
    return (value for value in values if isinstance(value, dict))


def _key(value: Any) -> str:
    return str(value)
