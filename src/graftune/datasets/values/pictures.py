"""Images, and the objects in them."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy

from graftune.datasets.values.classes import label
from graftune.datasets.values.downloads import downloaded, fetched
from graftune.datasets.values.scalars import InvalidValue, is_list, number, parsed, short

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]

#: What data sets call the class of an object; names come before numbers where both are there.
LABEL_KEYS: Final = (
    *("category", "categories", "label", "labels", "name", "class", "class_labels", "category_name", "category_id"),
)
CORNER_AND_SIZE: Final = ("bbox", "bboxes")
#: The numbers of a box that is an object: its edges, or its left upper corner and size.
NAMED_BOXES: Final = (("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"))
NAMED_SIZES: Final = (("x", "y", "width", "height"), ("left", "top", "width", "height"), ("x", "y", "w", "h"))
EDGES: Final = ("box", "boxes")
ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.]+://")
CHECKED = 2**16  # images known to be good; a row is read again whenever it is used


def image(value: Any, folder: Path) -> Path | bytes:
    """The file of an image, or its bytes as data sets of the Hub have them; it is decoded once, as a test.

    An address (http, https) is downloaded once; other addresses are read as fsspec reads them (zip, hf, …).
    """
    from PIL import Image

    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image):
        held = io.BytesIO()
        value.save(held, format="PNG")
        value = held.getvalue()
    if isinstance(value, str):
        value = _at(value, folder)
    if not isinstance(value, Path | bytes):
        raise InvalidValue(f"is a {type(value).__name__}, not an image or the path of one")
    size(value)
    return value


def _at(place: str, folder: Path) -> Path | bytes:
    if place.startswith(("http://", "https://")):
        return downloaded(place)
    return fetched(place) if ADDRESS.match(place) else folder / place


def size(image: Path | bytes) -> tuple[int, int]:
    """Width and height in pixels, upright; the image is decoded for it once. Raises InvalidValue as `opened` does."""
    if isinstance(image, bytes):
        return _size_once(hashlib.sha256(image).digest(), _Held(image))
    try:
        stat = image.stat()
    except FileNotFoundError as error:
        raise InvalidValue(f"names a file that is not there ({short(str(image))})") from error
    except (OSError, ValueError) as error:
        raise InvalidValue(f"names no file ({error})") from error
    return _size_once((str(image), stat.st_mtime_ns, stat.st_size), _Held(image))


def opened(image: Path | bytes) -> Image.Image:
    """The image as it is looked at: turned as its camera says (EXIF), 16 bits a pixel brought to 8.

    Raises InvalidValue for a broken image, one that would fill the memory, and pixels whose range is unknown.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as file:
                picture = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidValue(f"is an image of too many pixels ({error})") from error
    except Exception as error:  # Pillow's many readers raise almost anything for a broken file
        raise InvalidValue(f"is no readable image ({type(error).__name__}: {error})") from error
    if picture.mode in ("I", "F"):
        raise InvalidValue("is an image of 32 bits a pixel, whose brightest value is unknown; save it with 8 or 16")
    if picture.mode.startswith("I;16"):
        return Image.fromarray((numpy.asarray(picture) / 257).round().astype(numpy.uint8))  # 65535 = 257 * 255
    return picture


class _Held:
    """Carries an image past the cache, all of which are equal: the key alone tells images apart."""

    def __init__(self, image: Path | bytes) -> None:
        self.image = image

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(CHECKED)
def _size_once(key: Any, held: _Held) -> tuple[int, int]:
    image, held.image = held.image, b""  # the cache keeps the key, not the image
    return opened(image).size


def objects(value: Any, folder: Path) -> tuple[tuple[str, Box], ...]:
    """Labels with boxes (left, top, right, bottom) in pixels.

    A list with one object each, {"label": …, "box": […]}, or one object of lists, {"category": […], "bbox": [[…], …]}.
    The label may be called any of `LABEL_KEYS`. `box` and `boxes` are edges: left, top, right, bottom. `bbox` and
    `bboxes` are as COCO has them: left, top, width, height. A box is four numbers, or an object that names them
    (`xmin`, `ymin`, `xmax`, `ymax`; `x`, `y`, `width`, `height`).
    """
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, Mapping):
        value = _one_each(value)
    if not is_list(value):
        raise InvalidValue("is not a list of objects")
    if not all(isinstance(one, Mapping) for one in value):
        raise InvalidValue(f"holds no objects with labels and boxes ({short(value)})")
    return tuple(_object(one, folder) for one in value)


def _one_each(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    named, boxed = _key(value, LABEL_KEYS), _key(value, CORNER_AND_SIZE + EDGES)
    if named is None or boxed is None:
        raise _incomplete("has objects", value)
    labels, boxes = (_unwrapped(value[key]) for key in (named, boxed))
    if is_list(boxes) and boxes and all(isinstance(one, Mapping) for one in boxes):
        return list(boxes)
    if not is_list(labels) or not is_list(boxes):
        raise InvalidValue(f"has no list in {named!r} or {boxed!r}")
    if len(labels) != len(boxes):
        raise InvalidValue(f"has {len(labels)} labels and {len(boxes)} boxes")
    return [{named: one, boxed: box} for one, box in zip(labels, boxes, strict=True)]


def _unwrapped(value: Any) -> Any:
    """The list that a text of CSV holds."""
    return parsed(value) if isinstance(value, str) and value.lstrip().startswith("[") else value


def _object(one: Mapping[str, Any], folder: Path) -> tuple[str, Box]:
    named, boxed = _key(one, LABEL_KEYS), _key(one, CORNER_AND_SIZE + EDGES)
    if named is None or boxed is None:
        raise _incomplete("has an object", one)
    name, box = label(one[named], folder), one[boxed]
    if isinstance(box, Mapping):
        boxed, box = _spelled_out(box)
    if not is_list(box) or not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in box):
        raise InvalidValue(f"has a box that is not four numbers for {name!r} ({short(box)})")
    if len(box) != 4:
        raise InvalidValue(f"has a box of {len(box)} numbers for {name!r}")
    left, top, third, fourth = numbers = [number(edge, folder) for edge in box]
    if max(numbers) <= 1 and any(edge % 1 for edge in numbers):
        raise InvalidValue(f"has a box within one pixel for {name!r} ({short(box)}): pixels are expected, not shares")
    if boxed in CORNER_AND_SIZE:
        return name, (left, top, left + third, top + fourth)
    return name, (left, top, third, fourth)


def _spelled_out(box: Mapping[str, Any]) -> tuple[str, Any]:
    """Which kind of box an object is, and its four numbers; the object itself where it names others."""
    for kind, spellings in ((EDGES, NAMED_BOXES), (CORNER_AND_SIZE, NAMED_SIZES)):
        for names in spellings:
            if all(name in box for name in names):
                return kind[0], [box[name] for name in names]
    return EDGES[0], box


def _key(value: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if value.get(key) is not None), None)


def _incomplete(what: str, value: Mapping[str, Any]) -> InvalidValue:
    held = ", ".join(f"{key!r} is null" if one is None else repr(key) for key, one in value.items())
    return InvalidValue(f'{what} without "label" or "box" ({held or "nothing"})')
