"""Cells: every form that data come in is read, and what is wrong is said."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

import datasets
from graftune.datasets import Row, read, values
from graftune.errors import GraftuneError
from graftune.tasks import Detect, Extract
from graftune.tasks.instruct import Instruct

HERE = Path()


@pytest.mark.parametrize(
    ("reader", "value", "found"),
    [
        (values.words, ["a", "b"], ("a", "b")),
        (values.words, '["a", "b c"]', ("a", "b c")),
        (values.words, "a b", ("a", "b")),
        (values.words, [0, 1], ("0", "1")),
        (values.number, "2.5", 2.5),
        (values.objects, [{"label": "a", "box": [0, 1, 2, 3]}], (("a", (0.0, 1.0, 2.0, 3.0)),)),
        (values.objects, {"category": [3], "bbox": [[1, 2, 10, 20]]}, (("3", (1.0, 2.0, 11.0, 22.0)),)),
        *((values.label, one, "1") for one in (1, 1.0, "1", "1.0", " 1 ", "1.")),
        *((values.label, one, "true") for one in (True, "true", "True", "TRUE ")),
        *((values.label, one, one) for one in ("007", "01.0", "1.5", "positive", "v1.0", "1e5")),
        (values.label, " positive ", "positive"),
        (values.label, -0.0, "0"),
        (values.label, 0.5, "0.5"),
        *((values.labels, one, ("a", "b c")) for one in (
            ["a", "b c", "a "], '["a", "b c"]', "['a', 'b c']", "a, b c", "a|b c", "a;b c")),
        (values.labels, "Travel, leisure|Food", ("Travel, leisure", "Food")),
        *((values.labels, one, ()) for one in ([], "", " ", "[]")),
        (values.labels, 3.0, ("3",)),
        (values.labels, [0, 1], ("0", "1")),
        (values.labels, [1, 2, 2], ("1", "2")),
        *((values.numbers, one, (1.0, 2.5)) for one in ([1, 2.5], "[1, 2.5]", "1 2.5", (1, "2.5"))),
        (values.numbers, 3, (3.0,)),
        (values.words, "['EU' 'rejects a' \"b's\"]", ("EU", "rejects a", "b's")),
        (values.words, "[0 01 12]", ("0", "01", "12")),
        (values.words, "['EU'\n 'rejects']", ("EU", "rejects")),
        (values.numbers, "[1. 2.5e+00]", (1.0, 2.5)),
        (values.words, "['EU', \"Reuters'\"]", ("EU", "Reuters'")),
        (values.located_answers, {"text": ["x", "y"], "answer_start": [7, "9"]}, (("x", 7), ("y", 9))),
        (values.located_answers, '{"text": ["x"], "answer_start": [7]}', (("x", 7),)),
        (values.located_answers, [{"text": "x", "answer_start": 7}, {"text": "x", "answer_start": 9}],
         (("x", 7), ("x", 9))),
        (values.located_answers, {"text": "x", "answer_start": 3.0}, (("x", 3),)),
        (values.located_answers, {"text": ["x"], "answer_start": [-1]}, (("x", None),)),
        (values.located_answers, {"answer": "x", "answer_start": 7}, (("x", 7),)),
        (values.located_answers, {"answer": "x", "answer_start": [7]}, (("x", 7),)),
        (values.located_answers, {"answers": ["x"], "start": "7"}, (("x", 7),)),
        (values.located_answers, {"answers": "['x', 'y']", "answer_start": "[7, 9]"}, (("x", 7), ("y", 9))),
        (values.located_answers, {"answers": {"text": ["x"], "answer_start": [7]}, "answer_start": None}, (("x", 7),)),
        (values.located_answers, {"answers": [{"text": "x", "start": 7}], "answer_start": 3}, (("x", 7),)),
        (values.located_answers, {"answers": [], "answer_start": []}, ()),
        (values.located_answers, "x", (("x", None),)),
        (values.located_answers, "[sic] x", (("[sic] x", None),)),
        (values.located_answers, ["x", "y"], (("x", None), ("y", None))),
        *((values.located_answers, one, ()) for one in ([], {"text": [], "answer_start": []}, "[]")),
        *((values.objects, one, (("cat", (1.0, 2.0, 11.0, 22.0)),)) for one in (
            {"label": ["cat"], "boxes": [[1, 2, 11, 22]]},
            {"labels": ["cat"], "bboxes": [[1, 2, 10, 20]]},
            {"id": [4], "area": [200], "category": ["cat"], "bbox": [[1, 2, 10, 20]], "category_id": [8]},
            {"categories": ["cat"], "bbox": [[1, 2, 10, 20]]},
            {"class_labels": ["cat"], "box": [[1, 2, 11, 22]]},
            [{"category": "cat", "bbox": [1, 2, 10, 20], "iscrowd": 0}],
            [{"class": "cat", "box": [1, 2, 11, 22]}],
            '[{"name": "cat", "bbox": [1, 2, 10, 20]}]',
        )),
        (values.objects, {"boxes": [{"label": "a", "box": [0, 1, 2, 3]}], "label": "scene"}, (("a", (0, 1, 2, 3)),)),
        (values.objects, {"bboxes": "[[1, 2, 10, 20]]", "labels": "['cat']"}, (("cat", (1.0, 2.0, 11.0, 22.0)),)),
        (values.located_answers, "{'text': array(['x'], dtype=object), 'answer_start': array([7], dtype=int32)}",
         (("x", 7),)),
        (values.located_answers, "{'text': array([], dtype=object), 'answer_start': array([], dtype=int32)}", ()),
        (values.objects, {"category_id": [3.0], "bbox": [[0, 0, 1, 1]]}, (("3", (0.0, 0.0, 1.0, 1.0)),)),
        *((values.objects, one, ()) for one in ([], {"category": [], "bbox": []})),
    ],
)  # fmt: skip
def test_every_form_is_read(reader, value, found):
    assert reader(value, HERE) == found


@pytest.mark.parametrize(
    ("reader", "value", "problem"),
    [
        (values.words, [], "is empty"),
        (values.words, 3, "not a list of words"),
        (values.words, "[1", "broken JSON"),
        (values.number, "much", "'much', not a number"),
        (values.number, float("inf"), "not a finite number"),
        (values.objects, [{"label": "a"}], 'without "label" or "box"'),
        (values.objects, [{"label": "a", "box": [1, 2]}], "a box of 2 numbers for 'a'"),
        (values.objects, [[1, 2, 3, 4]], "holds no objects with labels and boxes"),
        (values.objects, {"bbox": [None], "label": ["a"]}, "'bbox' is null"),
        (values.located_answers, "{'text': ['x'], 'answer_start': [7]", "broken JSON"),
        (values.words, "[open('x')]", "broken JSON"),
        (values.objects, {"category": [1], "bbox": []}, "1 labels and 0 boxes"),
        (values.objects, 3, "not a list of objects"),
        *((values.objects, [{"label": "a", "box": box}], "not four numbers for 'a'") for box in (
            "1234", ["1", "2", "3", "4"], {"xmin": 1}, [1, 2, None, 4], [True, 0, 1, 1])),
        (values.objects, [{"label": "a", "box": None}], 'without "label" or "box"'),
        (values.objects, {"label": ["a"], "box": [[1, 2, 3]]}, "a box of 3 numbers for 'a'"),
        (values.objects, {"label": "a", "box": [1, 2, 3, 4]}, "no list in"),
        *((values.labels, one, "ones and zeros") for one in (
            [0, 1, 0], [0.0, 1.0, 1.0], "[0, 0]", [True, False], "0,1,0,1")),
        (values.label, float("nan"), "not a class"),
        (values.label, " ", "is empty"),
        (values.label, ["a"], "a list, not text"),
        (values.numbers, [], "holds no number"),
        (values.numbers, [1, "x"], "'x', not a number"),
        (values.number, 10**400, "not a number"),
        (values.located_answers, {"text": ["x"], "answer_start": []}, '1 texts and 0 numbers in "answer_start"'),
        (values.located_answers, {"text": ["x"], "answer_start": [1.5]}, "not the number of a character"),
        (values.located_answers, "", "is empty"),
        (values.located_answers, {"answer_start": [1]}, 'has no "text"'),
        (values.conversation, [{"role": "user", "content": "a"}], "no message of the assistant"),
        (values.conversation, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}],
         "the weight 0 on every message of the assistant"),
        (values.conversation, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}],
         "the weight 0.5 in message 2; 0 and 1 are known"),
        (values.image, "nowhere.png", "names a file that is not there"),
        (values.image, 3, "a int, not an image"),
        (values.image, {"bytes": b"no image"}, "no readable image"),
        (values.image, "a\0b", "names no file"),
        (values.image, "http://127.0.0.1:1/x.png", "could not be downloaded"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(reader, value, problem):
    with pytest.raises(values.InvalidValue) as caught:
        reader(value, HERE)
    assert problem in str(caught.value)


def test_images_are_found_beside_their_file_and_decoded_once(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")
    assert values.image("a.png", tmp_path) == tmp_path / "a.png"
    assert values.image({"bytes": (tmp_path / "a.png").read_bytes(), "path": None}, HERE)[:4] == b"\x89PNG"
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    with pytest.raises(values.InvalidValue, match="no readable image"):
        values.image("b.png", tmp_path)


def test_images_in_archives_are_read_where_they_lie(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")
    held = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "in/a.png")
    place = f"zip://in/a.png::{tmp_path / 'x.zip'}"  # as data sets of the Hub name the files of their archives
    for value in (place, {"bytes": None, "path": place}, f"file://{tmp_path / 'a.png'}"):
        assert values.image(value, HERE) == held
    for wrong in (f"zip://b.png::{tmp_path / 'x.zip'}", "nothing://a.png", f"zip://a.png::{tmp_path / 'y.zip'}"):
        with pytest.raises(values.InvalidValue, match="could not be read"):
            values.image(wrong, HERE)


VOC = """<annotation><filename>x.jpg</filename><object><name>{name}</name>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{right}</xmax><ymax>8</ymax></bndbox></object></annotation>"""


def test_a_folder_of_pascal_voc_files(tmp_path):
    for number, right in enumerate(["5", "6", "40", "wide"]):
        Image.new("RGB", (12, 10)).save(tmp_path / f"{number}.jpg")
        (tmp_path / f"{number}.xml").write_text(VOC.format(name="cell", right=right))
    with pytest.raises(GraftuneError, match=r"line 4: 3\.xml: not a Pascal VOC file"):
        read(tmp_path, columns=Detect.columns)
    table = read(tmp_path, columns=Detect.columns, share=0.3)
    assert table.rows[0].input == tmp_path / "0.jpg"
    assert table.rows[1].target == (("cell", (1.0, 2.0, 6.0, 8.0)),)
    task = Detect().fit(table.rows)
    assert {row.line: problem for row in table.rows if (problem := task.problem(row))} == {
        3: "box (1, 2, 40, 8) of 'cell' is not inside the image of 12 x 10"
    }
    empty = Row(tmp_path / "0.jpg", (("cell", (3.0, 2.0, 3.0, 4.0)),), 8)
    assert task.problem(empty) == "box (3, 2, 3, 4) of 'cell' is empty"


def test_a_conversation_is_one_example_up_to_its_last_answer(tmp_path):
    talk = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    messages = [{"role": role, "content": text} for role, text in talk]
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": messages}))
    rows = read(tmp_path / "x.jsonl", columns=Instruct.columns).rows
    assert [(row.input, row.target) for row in rows] == [(tuple(messages[:3]), messages[3])]


def said(role, content, **more):
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([said("user", "a"), said("assistant", "b")],) * 2,
        ([said("system", ""), said("user", "a"), said("assistant", "b")],) * 2,
        *([([{"from": user, "value": "a"}, {"from": bot, "value": "b"}], [said("user", "a"), said("assistant", "b")])
           for user, bot in [("human", "gpt"), ("User", "ASSISTANT"), ("prompter", "bot"), ("user", "model"),
                             ("user ", "chatgpt"), ("human", "AI")]]),
        ([said("developer", "x"), said("user", "a"), said("assistant", "b")],
         [said("system", "x"), said("user", "a"), said("assistant", "b")]),
        ([said("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), said("assistant", "c")],
         [said("user", "ab"), said("assistant", "c")]),
        ([said("user", "a", name=None, tool_calls=None), said("assistant", "b", reasoning_content="hm")],
         [said("user", "a"), said("assistant", "b", reasoning_content="hm")]),
        ([said("user", "a"),
          said("assistant", None, tool_calls=[{"id": "1", "type": "function",
                                               "function": {"name": "f", "arguments": '{"x": 1}'}}]),
          said("observation", "", tool_call_id="1"), said("assistant", "b")],
         [said("user", "a"),
          said("assistant", None, tool_calls=[{"id": "1", "type": "function",
                                               "function": {"name": "f", "arguments": '{"x": 1}'}}]),
          said("tool", "", tool_call_id="1"), said("assistant", "b")]),
        ([{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}],
         [said("user", "a"), said("assistant", None, tool_calls=[
             {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])]),
    ],
)  # fmt: skip
def test_conversations_are_read_as_templates_take_them(value, found):
    assert list(values.conversation(value, HERE)) == found
    assert list(values.conversation(json.dumps(value), HERE)) == found


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([said("user", "a")], "no message of the assistant"),
        ([said("system", "a"), said("assistant", "b")], "no message before the assistant's first"),
        ([said("assistant", "b"), said("user", "a")], "no message before the assistant's first"),
        ([said("usr", "a"), said("assistant", "b")], "unknown role 'usr' in message 1; did you mean 'user'?"),
        ([said(3, "a"), said("assistant", "b")], "unknown role 3"),
        ([{"content": "a"}], "no role in message 1"),
        ([said("user", "a"), said("assistant", None)], "no content in message 2"),
        ([said("user", "a"), said("assistant", " ")], "an empty message 2"),
        ([said("user", [{"type": "image", "url": "x"}]), said("assistant", "b")], "'image' in message 1; only text"),
        ([said("user", {"a": 1}), said("assistant", "b")], "a content in message 1 that is not supported"),
        ([said("user", "a"), said("assistant", None, tool_calls=3)], "a tool_calls in message 2"),
        ([], "no message of the assistant"),
        (["a"], "not a list of messages"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said(value, problem):
    with pytest.raises(values.InvalidValue) as caught:
        values.conversation(value, HERE)
    assert problem in str(caught.value)


def test_images_that_would_fill_the_memory_are_refused(monkeypatch, tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    for limit in (1000, 100):  # Pillow warns above its limit and raises above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(values.InvalidValue, match="too many pixels"):
            values.image("a.png", tmp_path)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def images_of_every_kind(folder: Path) -> dict[str, Path]:
    """A gradient with eight bits a channel, in the ways that files hold one."""
    shades = Image.linear_gradient("L").resize((40, 30))
    colours = Image.merge("RGB", (shades, shades.rotate(180), shades))
    clear = colours.convert("RGBA")
    clear.putalpha(shades)
    found = {name: saved(shades.convert(name), folder / f"{name}.png") for name in ("1", "L", "LA")}
    found["palette"] = saved(colours.quantize(8), folder / "p.png", transparency=3)
    found |= {"clear": saved(clear, folder / "rgba.png"), "CMYK": saved(colours.convert("CMYK"), folder / "cmyk.jpg")}
    for turn in range(1, 9):
        exif = colours.getexif()
        exif[0x0112] = turn
        found |= {
            f"{end} {turn}": saved(colours, folder / f"{turn}.{end}", exif=exif) for end in ("jpg", "png", "webp")
        }
    return found


def test_images_are_what_transformers_and_datasets_make_of_them(tmp_path):
    for name, path in images_of_every_kind(tmp_path).items():
        wanted = load_image(str(path))
        for image in (path, path.read_bytes()):
            assert values.opened(image).convert("RGB").tobytes() == wanted.tobytes(), name
            assert values.size(image) == wanted.size
        theirs = datasets.Image().decode_example({"path": str(path), "bytes": None})
        assert theirs.convert("RGB").tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("kind", "end"), [("<u2", "png"), ("<u2", "tif"), (">u2", "tif")])
def test_sixteen_bits_are_brought_to_eight(tmp_path, kind, end):
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = saved(Image.fromarray((shades * np.uint16(257)).astype(kind)), tmp_path / f"a.{end}")
    assert values.image(path.name, tmp_path) == path
    assert np.array_equal(np.asarray(values.opened(path)), shades)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_shades_of_an_unknown_range_are_refused(tmp_path, kind):
    path = saved(Image.fromarray(np.ones((8, 8), kind)), tmp_path / "a.tif")
    with pytest.raises(values.InvalidValue, match="32 bits a pixel"):
        values.image(path.name, tmp_path)


@pytest.mark.parametrize(
    "box",
    [
        {"xmin": 5, "ymin": 6, "xmax": 15, "ymax": 20},
        {"x1": 5, "y1": 6, "x2": 15, "y2": 20},
        {"left": 5, "top": 6, "right": 15, "bottom": 20},
        {"x": 5, "y": 6, "width": 10, "height": 14},
        {"left": 5, "top": 6, "width": 10, "height": 14},
        {"x": 5, "y": 6, "w": 10, "h": 14},
    ],
)
def test_a_box_may_name_its_numbers(box):
    for key in ("box", "bbox"):
        assert values.objects([{"label": "cat", key: box}], HERE) == (("cat", (5, 6, 15, 20)),)


def test_boxes_in_shares_of_the_image_are_refused():
    with pytest.raises(values.InvalidValue, match="within one pixel for 'cat'"):
        values.objects([{"label": "cat", "bbox": [0.1, 0.2, 0.5, 0.5]}], HERE)


@pytest.mark.parametrize("boxes", ["bbox", "Bboxes", "boxes", "box"])
def test_boxes_and_labels_may_be_columns_of_their_own(tmp_path, boxes):
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    rows = [{"image": "a.png", boxes: [[1, 2, 3, 4]], "Labels": ["cat"], "width": 40}, {"image": "a.png", boxes: []}]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"Labels": [], **row}) for row in rows))
    table = read(tmp_path / "x.jsonl", columns=Detect.columns)
    edges = (1, 2, 4, 6) if "bb" in boxes.lower() else (1, 2, 3, 4)
    assert [row.target for row in table.rows] == [(("cat", edges),), ()]
    assert (table.input, table.target, table.second) == ("image", boxes, "Labels")
    for labels, said in (("cat", "no list in 'labels' or"), (None, "'labels' is null"), (["a", "b"], "2 labels and 1")):
        (tmp_path / "y.jsonl").write_text(json.dumps({**rows[0], "Labels": labels}))
        with pytest.raises(GraftuneError, match=said):
            read(tmp_path / "y.jsonl", columns=Detect.columns)
    (tmp_path / "z.jsonl").write_text(json.dumps({"image": "a.png", boxes: [[1, 2, 3, 4]]}))
    with pytest.raises(GraftuneError, match="no objects with labels and boxes"):
        read(tmp_path / "z.jsonl", columns=Detect.columns)


def test_answers_and_their_places_may_be_columns_of_their_own(tmp_path):
    row = {"context": "a b a", "question": "q", "answer": "a", "answer_start": 4}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    table = read(tmp_path / "x.jsonl", columns=Extract.columns)
    assert (table.rows[0].target, table.second) == ((values.Answer("a", 4),), "answer_start")
    (tmp_path / "x.csv").write_text("context,question,answer,answer_start\na b a,q,a,4\n")
    assert read(tmp_path / "x.csv", columns=Extract.columns).rows[0].target == (values.Answer("a", 4),)


def test_an_image_is_decoded_once_however_often_its_row_is_read(monkeypatch, tmp_path):
    for number, place in enumerate(("a.png", "b.png")):
        Image.new("L", (8, 8), number).save(tmp_path / place)
    opened, known = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or known(*a, **k))
    held = (tmp_path / "b.png").read_bytes()
    for _ in range(3):
        assert values.image("a.png", tmp_path) == tmp_path / "a.png"
        assert values.image({"bytes": held}, tmp_path) == held
    assert len(opened) == 2


def test_a_number_too_long_to_write_out_is_refused():
    with pytest.raises(values.InvalidValue, match="too long to write out"):
        values.text(10**5000, HERE)


def test_prompts_end_on_what_is_to_be_answered():
    asked = [said("system", "x"), said("user", "a")]
    assert list(values.prompt(asked, HERE)) == asked
    assert list(values.prompt([*asked, said("assistant", "b")], HERE)) == asked
    assert list(values.prompt([*asked, said("assistant", "b"), said("user", "c")], HERE))[-1] == said("user", "c")
    for wrong in ([], [said("system", "x")], [said("assistant", "b")]):
        with pytest.raises(values.InvalidValue, match="does not end on a message"):
            values.prompt(wrong, HERE)
