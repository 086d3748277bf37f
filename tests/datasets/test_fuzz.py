"""Whatever bytes a file holds and whatever value a cell has: it is read, or refused in words."""

from __future__ import annotations

import gzip
import inspect
import io
import json
from contextlib import suppress
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from graftune.datasets import read, values
from graftune.datasets.columns import Columns
from graftune.datasets.rows import read_inputs
from graftune.datasets.sources import READERS
from graftune.datasets.sources.plain import PACKED
from graftune.datasets.splits import duplicates_between, split_off
from graftune.errors import GraftuneError

FORMATS = sorted(path for path in (Path(__file__).parents[1] / "formats").rglob("*") if path.is_file())
FUNCTIONS = [one for name in values.__all__ if inspect.isfunction(one := getattr(values, name))]
READ = [one for one in FUNCTIONS if list(inspect.signature(one).parameters) == ["value", "folder"]]
ENDS = ["", ".odd", *READERS, *PACKED]
USUAL = ("text", "input", "question", "premise", "tokens", "messages", "image")
ANY = [Columns(USUAL, ("label", "target", "output", "answers", "tags", "objects"), values.text, reader)
       for reader in READ]  # fmt: skip
BESIDE = Columns(USUAL, (*values.BOXES, "answers", "data"), target=values.objects, beside=values.BOXES)
PLACED = Columns(USUAL, ("answer", "target", "text"), target=values.located_answers, beside=values.PLACES)
TALK = Columns(("instruction",), ("output",), joint={"messages": values.conversation})

WRITTEN = ["user", "assistant", "gpt", "[1, 2", '{"text": []}', "[]", "1.0", "true", "a.png", "http://", "\0", "['a'"]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WRITTEN)
KEYS = st.sampled_from([
    "text", "answer_start", "role", "content", "from", "value", "tool_calls", "function", "arguments", "type", "name",
    "label", "category", "bbox", "box", "bytes", "path", "input", "target", "data", "images", "annotations",
    "boxes", "answer", "start", "translation", "columns",
    "categories", "paragraphs", "qas", "context", "file_name", "image_id", "category_id", "id", "messages",
]) | st.text(max_size=3)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)

SIGNS = [b"\n", b"\r", b'"', b"\t", b",", b"[", b"{", b"null", b"\0", b"\xff"]


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


@st.composite
def damaged(draw) -> bytes:
    """A file of tests/formats with some bytes left out, put in or changed, as it is or packed."""
    content = bytearray(draw(st.sampled_from(FORMATS)).read_bytes()[: draw(st.integers(0, 3000))])
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        put_in = draw(st.binary(max_size=6) | st.sampled_from(SIGNS))
        content[place : place + draw(st.integers(0, 30))] = put_in
    pack = draw(st.sampled_from([bytes, bytes, bytes, gzip.compress, zstd]))
    packed = pack(bytes(content))
    return packed[: draw(st.integers(0, len(packed)))] if draw(st.integers(0, 9)) == 0 else packed


def picture(kind: str, mode: str) -> bytes:
    held = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert(mode).save(held, kind, exif=b"Exif\0\0II*\0\x08" + bytes(9))
    return held.getvalue()


PICTURES = [picture(*one) for one in (("PNG", "L"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("TIFF", "CMYK"))]
PICTURES += [picture(*one) for one in (("GIF", "P"), ("BMP", "RGB"), ("PPM", "L"), ("ICO", "RGBA"))]


@st.composite
def broken_pictures(draw) -> bytes:
    content = bytearray(draw(st.sampled_from(PICTURES)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 9))] = draw(st.binary(max_size=6))
    return bytes(content)[: draw(st.integers(0, 4000))]


def look_at(path: Path, columns: Columns) -> None:
    """Read a file and use every row; a refusal is a GraftuneError and nothing else."""
    with suppress(GraftuneError):
        list(read_inputs(path, columns=columns))
    try:
        table = read(path, columns=columns, share=1.0)
    except GraftuneError:
        return
    rows = list(table.rows)
    assert len(rows) == len(table.rows) > 0
    assert len(table.fingerprint) == 16
    assert duplicates_between(table, table) == len(rows)
    assert not {row.line for row in rows} & set(table.left_out)
    assert repr(list(table.rows[::-1])) == repr(rows[::-1])
    with suppress(GraftuneError):  # all rows may have one input
        train, held = split_off(table, 0.5, 0)
        assert len(train.rows) + len(held.rows) == len(rows)


def cells_are_read_or_refused(reader, value) -> None:
    for one in (value, json.dumps(value)):
        with suppress(values.InvalidValue):
            reader(one, Path("/nowhere"))


FILES = given(st.binary(max_size=200) | damaged(), st.sampled_from(ENDS), st.sampled_from([*ANY, TALK, BESIDE, PLACED]))
DOCUMENTS = given(anything, st.sampled_from([".json", ".jsonl", ""]), st.sampled_from([*ANY, TALK, BESIDE, PLACED]))
CELLS = given(st.sampled_from(READ), anything)
IMAGES = given(broken_pictures())


def cases(count: int):
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@cases(150)
@FILES
def test_files(folder, content, ends, columns):
    (folder / f"file{ends}").write_bytes(content)
    look_at(folder / f"file{ends}", columns)


@cases(150)
@DOCUMENTS
def test_documents(folder, document, ends, columns):
    (folder / f"document{ends}").write_text(json.dumps(document))
    look_at(folder / f"document{ends}", columns)


@cases(300)
@CELLS
def test_cells(reader, value):
    cells_are_read_or_refused(reader, value)


def images_are_read_or_refused(content) -> None:
    with suppress(values.InvalidValue):
        assert values.image(content, Path()) == content
        assert values.opened(content).convert("RGB").size == values.size(content)


@cases(150)
@IMAGES
def test_images(content):
    images_are_read_or_refused(content)


@pytest.mark.slow
@cases(8000)
@IMAGES
def test_many_images(content):
    images_are_read_or_refused(content)


@pytest.mark.slow
@cases(8000)
@FILES
def test_many_files(folder, content, ends, columns):
    (folder / f"file{ends}").write_bytes(content)
    look_at(folder / f"file{ends}", columns)


@pytest.mark.slow
@cases(8000)
@DOCUMENTS
def test_many_documents(folder, document, ends, columns):
    (folder / f"document{ends}").write_text(json.dumps(document))
    look_at(folder / f"document{ends}", columns)


@pytest.mark.slow
@cases(20_000)
@CELLS
def test_many_cells(reader, value):
    cells_are_read_or_refused(reader, value)
