"""docs/data.md: every format in its table is read, by the command that stands beside it."""

from __future__ import annotations

import bz2
import functools
import gzip
import http.server
import json
import lzma
import re
import shlex
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.feather
import pytest
from PIL import Image, ImageDraw

import datasets
from graftune.cli import main
from graftune.datasets import Table, read, values
from graftune.datasets.rows import read_inputs
from graftune.errors import GraftuneError
from graftune.tasks import registry
from training import test_tasks as tiny

HERE = Path(__file__).parents[1] / "formats"
PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| [^|]+ \| `([^`]+)` \| `(graftune train [^`]+)` \|$", PAGE, re.MULTILINE)
REVIEWS = [json.loads(line) for line in (HERE / "reviews.jsonl").read_text().splitlines()]


def draw(path: Path, shape: str) -> None:
    """A picture of 48 x 32 pixels with a shape in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (48, 32), "white")
    pen = ImageDraw.Draw(image)
    (pen.rectangle if shape == "square" else pen.ellipse)((4, 5, 24, 15), fill="black")
    image.save(path)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """The files of the table: those of text as they lie in tests/formats, and made from them what is no text."""
    folder = tmp_path_factory.mktemp("formats") / "formats"
    shutil.copytree(HERE, folder)
    for place in ("pictures", "voc", "imagefolder", "coco/images", "yolo/images/train"):
        for number in range(6):
            draw(folder / place / f"{number}.png", "square" if number % 2 else "circle")
    for number in range(6):
        draw(folder / "classes" / ("square" if number % 2 else "circle") / f"{number}.png", "circle")
    lines = (folder / "reviews.jsonl").read_bytes()
    (folder / "reviews.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "reviews.jsonl.zst").write_bytes(pyarrow.compress(lines, codec="zstd", asbytes=True))
    (folder / "reviews.csv.bz2").write_bytes(bz2.compress((folder / "reviews.csv").read_bytes()))
    (folder / "reviews.tsv.xz").write_bytes(lzma.compress((folder / "reviews.tsv").read_bytes()))
    with zipfile.ZipFile(folder / "reviews.zip", "w") as packed:
        packed.writestr("reviews/reviews.csv", (folder / "reviews.csv").read_bytes())
        packed.writestr("__MACOSX/reviews/._reviews.csv", b"made by a computer")
    (folder / "reviews_utf16.csv").write_text((folder / "reviews.csv").read_text(), encoding="utf-16")
    _arrow(folder)
    return folder


def _arrow(folder: Path) -> None:
    names = datasets.ClassLabel(names=["negative", "positive"])
    columns = {"text": [one["text"] for one in REVIEWS], "label": [one["label"] for one in REVIEWS]}
    reviews = datasets.Dataset.from_dict(columns).cast_column("label", names)
    reviews.to_parquet(folder / "reviews.parquet")
    for place, split in (("shards", "train"), ("splits", "train"), ("splits", "test")):
        (folder / place).mkdir(exist_ok=True)
        for number in range(2):
            shard = reviews.shard(2, number, contiguous=True)
            shard.to_parquet(folder / place / f"{split}-0000{number}-of-00002.parquet")
    reviews.save_to_disk(folder / "saved")
    pyarrow.feather.write_feather(
        pyarrow.table({"text": columns["text"], "label": columns["label"]}), folder / "reviews.feather"
    )
    sentences = [json.loads(line) for line in (HERE / "entities.jsonl").read_text().splitlines()]
    tags = sorted({tag for one in sentences for tag in one["ner_tags"]}, reverse=True)
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=tags)),
        }
    )
    numbered = {
        "tokens": [one["tokens"] for one in sentences],
        "ner_tags": [[tags.index(tag) for tag in one["ner_tags"]] for one in sentences],
    }
    datasets.Dataset.from_dict(numbered, features=features).to_parquet(folder / "entities.parquet")
    pictures = {"img": [str(folder / "pictures" / f"{number}.png") for number in range(6)], "label": [0, 1] * 3}
    shapes = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["circle", "square"])})
    datasets.Dataset.from_dict(pictures, features=shapes).to_parquet(folder / "pictures.parquet")


@pytest.fixture(scope="module")
def website(formats, tmp_path_factory):
    """A server of the pictures, at which `web_pictures.csv` points; downloads go to a folder of the test."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(formats))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    table = (formats / "pictures.csv").read_text().replace("pictures/", address + "pictures/")
    (formats / "web_pictures.csv").write_text(table)
    downloads = tmp_path_factory.mktemp("downloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftune.datasets.values.downloads.folder", lambda: downloads)
        yield address
    server.shutdown()


def options(command: str) -> dict[str, str]:
    """The options of a command line."""
    words = shlex.split(command)[2:]
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def table_of(command: str, folder: Path) -> Table:
    """What the command trains on."""
    named = options(command)
    columns = registry.TASKS[named["task"]].columns
    return read(str(folder / named["train"]), named.get("input"), named.get("target"), columns)


def test_the_table_has_every_file_once():
    assert len(COMMANDS) >= 20
    assert len({file for file, _ in COMMANDS}) == len(COMMANDS)
    kept = {path.name for path in HERE.iterdir()} - {"prompts.txt"}
    assert kept <= {file for file, _ in COMMANDS}
    assert all(options(command)["train"].split("/")[0] == file for file, command in COMMANDS)


REVIEW_ROWS = [(one["text"], one["label"]) for one in REVIEWS]
NUMBERED = [(text, str(int(label == "positive"))) for text, label in REVIEW_ROWS]
MINA = (("Mina", "moved", "to", "Oslo", "."), ("B-PER", "O", "O", "B-LOC", "O"))
ENTITIES = [MINA, (("The", "Blue", "Lamp", "Company", "hired", "Tomas", "Reil", "."),
                   ("O", "B-ORG", "I-ORG", "I-ORG", "O", "B-PER", "I-PER", "O"))]  # fmt: skip
SUMMARY = (
    "The council of Alden met on Tuesday. After a long debate it voted to plant 40 trees along the river. "
    "Work begins in spring."
)
BOX = (4.0, 5.0, 24.0, 15.0)
#: The first rows that each file holds, read off by eye; the others hold the reviews.
CATS = [
    (
        ({"role": "user", "content": "Give three names for a cat."},),
        {"role": "assistant", "content": "Moss, Pixel and Bruno."},
    )
]
ROWS: dict[str, list[tuple[object, object]]] = {
    "reviews.json": NUMBERED,
    "reviews.tsv": [*NUMBERED[:9], ('"Warm," he said', "1")],
    "reviews.tsv.xz": [*NUMBERED[:9], ('"Warm," he said', "1")],
    "reviews_excel.csv": [(text, "5" if label == "positive" else "1") for text, label in REVIEW_ROWS],
    "topics.csv": [
        ("The bank raised its rates.", ("economy",)),
        ("The striker sold his shares.", ("economy", "sport")),
    ],
    "nli.jsonl": [("A man repairs a bicycle in the yard.", "entailment")],
    "paraphrases.csv": [("How do I bake bread?", "1"), ("How do I bake bread?", "0")],
    "similarity.tsv": [("How do I bake bread?", (4.5,)), ("How do I bake bread?", (0.1,))],
    **dict.fromkeys((file for file, _ in COMMANDS if file.startswith("entities")), ENTITIES),
    "treebank.conllu": [
        (("Mina", "does", "n't", "sail", "."), ("PROPN", "AUX", "PART", "VERB", "PUNCT")),
        (
            ("Tomas", "writes", ",", "and", "Ada", "reads", "."),
            ("PROPN", "VERB", "PUNCT", "CCONJ", "PROPN", "VERB", "PUNCT"),
        ),
    ],
    "squad.json": [
        ("When was the mill built?", (("1871", 22),)),
        ("When did it burn down?", (("1902", 46),)),
        ("Who rebuilt the mill?", (("Ada Holm", 86),)),
        ("How many workers signed her book?", (("1871", 113),)),
        ("Who painted the mill?", ()),
    ],
    "squad.jsonl": [("When was the mill built?", (("1871", 22),))],
    "translations.tsv": [("good morning", "guten Morgen")],
    "opus.jsonl": [("good morning", "guten Morgen")],
    "summaries.jsonl": [(SUMMARY, "Alden will plant 40 trees.")],
    **dict.fromkeys(("alpaca.json", "sharegpt.json", "completions.jsonl"), CATS),
}
IMAGES = ("classes", "imagefolder", "pictures.csv", "web_pictures.csv", "pictures.parquet")
OBJECTS = ("coco", "objects.jsonl", "boxes.jsonl", "voc", "yolo")
TEXTS = [(file, command) for file, command in COMMANDS if file not in (*IMAGES, *OBJECTS, "chat.jsonl", "tools.jsonl")]


def contents(table: Table) -> list[tuple[object, object]]:
    return [(row.input, row.target) for row in table.rows]


@pytest.mark.parametrize(("file", "command"), TEXTS, ids=[file for file, _ in TEXTS])
def test_texts_are_read(file, command, formats):
    table = table_of(command, formats)
    expected = ROWS.get(file, REVIEW_ROWS)
    assert plain(contents(table)[: len(expected)]) == plain(expected)
    assert table.left_out == {}
    assert plain([table.rows[place].input for place in range(len(table.rows))]) == plain([r.input for r in table.rows])


def plain(value: object) -> object:
    """Messages as (role, text), however the task has them."""
    if isinstance(value, dict) and "role" in value:
        return value["role"], value["content"]
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def test_a_conversation_is_read(formats):
    table = table_of(dict(COMMANDS)["chat.jsonl"], formats)
    assert len(json.loads((formats / "chat.jsonl").read_text().splitlines()[0])["messages"]) == 5
    assert "Are you sure?" in str([row.input for row in table.rows])


def test_calls_of_tools_are_read(formats):
    (first, *_) = table_of(dict(COMMANDS)["tools.jsonl"], formats).rows
    assert [message["role"] for message in first.input] == ["user", "assistant", "tool"]
    assert first.input[1]["tool_calls"][0]["function"] == {"name": "rain", "arguments": '{"in": "Oslo"}'}
    assert first.target["content"] == "No."
    assert [tool["function"]["name"] for tool in values.tools(first.columns["tools"])] == ["rain"]


@pytest.mark.parametrize("file", IMAGES)
def test_images_have_their_labels(file, formats, website):
    table = table_of(dict(COMMANDS)[file], formats)
    wanted = ["circle"] * 3 + ["square"] * 3 if file == "classes" else ["circle", "square"] * 3
    assert [row.target for row in table.rows] == wanted
    assert all(values.image(row.input, Path()) == row.input for row in table.rows)


def test_texts_to_answer_are_a_line_each(formats):
    assert [row.input for row in read_inputs(formats / "prompts.txt")] == [text for text, _ in REVIEW_ROWS]


@pytest.mark.parametrize("file", OBJECTS)
def test_objects_have_their_boxes(file, formats):
    rows = table_of(dict(COMMANDS)[file], formats).rows
    first = "square" if file == "coco" else "circle"
    other = {"square": "circle", "circle": "square"}[first]
    found = [[(name, pytest.approx(box, abs=1e-4)) for name, box in row.target] for row in rows]
    assert found[:5] == [[(name, BOX)] for name in (first, other, first, other, first)]
    assert found[5] == ([] if file == "coco" else [(other, BOX)])
    assert [Path(row.input).name for row in rows] == [f"{number}.png" for number in range(6)]


def test_an_address_without_an_image_is_a_bad_line(formats, website):
    (formats / "some_missing.csv").write_text(f"image,label\n{website}pictures/0.png,a\n{website}nowhere.png,b\n")
    with pytest.raises(GraftuneError, match=r"line 3: 'image' could not be downloaded .*nowhere.png: HTTP Error 404"):
        read(formats / "some_missing.csv", columns=registry.TASKS["image-classify"].columns)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A small random base for each task."""
    folder = tmp_path_factory.mktemp("bases")
    encoder, decoder = tiny.bert(folder), tiny.llama(folder, positions=256)
    return {
        **dict.fromkeys(("classify", "multi-label", "tag", "regress", "extract"), encoder),
        **dict.fromkeys(("instruct", "translate", "summarize"), decoder),
        "image-classify": tiny.vit(folder),
        "detect": tiny.yolos(folder),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("file", "command"), COMMANDS, ids=[file for file, _ in COMMANDS])
def test_every_command_trains(file, command, formats, website, bases, monkeypatch, tmp_path):
    monkeypatch.chdir(formats)
    named = options(command)
    words = [*shlex.split(command), "--base", bases[named["task"]], "--max-steps", "1", "--out", str(tmp_path / "run")]
    words += [] if "eval" in named else ["--eval", named["train"]]
    words += ["--set", "bad_rows=0.25"]
    if named["task"] in ("instruct", "translate", "summarize"):
        words += ["--set", f"{named['task']}.max_new_tokens=2"]
    words += ["--set", "extract.stride=8"] if named["task"] == "extract" else []
    monkeypatch.setattr(sys, "argv", words)
    try:
        main()
    except SystemExit as end:
        assert not end.code  # noqa: PT017
    assert (tmp_path / "run" / "adapter" / "adapter.json").is_file()
