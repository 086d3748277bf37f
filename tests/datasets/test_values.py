"""Cells: every form that data come in is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from graftune.datasets import Row, read, values
from graftune.errors import GraftuneError
from graftune.tasks import Detect
from graftune.tasks.instruct import Instruct

HERE = Path()


@pytest.mark.parametrize(
    ("reader", "value", "found"),
    [
        (values.words, ["a", "b"], ("a", "b")),
        (values.words, '["a", "b c"]', ("a", "b c")),
        (values.words, "a b", ("a", "b")),
        (values.words, [0, 1], ("0", "1")),
        (values.answers, "x", ("x",)),
        (values.answers, {"text": ["x", "y", "x"], "answer_start": [1, 2, 1]}, ("x", "y")),
        (values.answers, '["x"]', ("x",)),
        (values.number, "2.5", 2.5),
        (values.objects, [{"label": "a", "box": [0, 1, 2, 3]}], (("a", (0.0, 1.0, 2.0, 3.0)),)),
        (values.objects, {"category": [3], "bbox": [[1, 2, 10, 20]]}, (("3", (1.0, 2.0, 11.0, 22.0)),)),
        (values.messages, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
         (("user", "a"), ("assistant", "b"))),
        (values.messages, [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
         (("user", "a"), ("assistant", "b"))),
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
        (values.answers, [], "holds no answer"),
        (values.number, "much", "'much', not a number"),
        (values.number, float("inf"), "not a finite number"),
        (values.objects, [{"label": "a"}], 'without "label" or "box"'),
        (values.objects, [{"label": "a", "box": [1, 2]}], "a box of 2 numbers for 'a'"),
        (values.objects, {"category": [1], "bbox": []}, "1 labels and 0 boxes"),
        (values.objects, 3, "not a list of objects"),
        (values.messages, [{"role": "user", "content": "a"}], "no message of the assistant"),
        (values.image, "nowhere.png", "names a file that is not there"),
        (values.image, 3, "a int, not an image"),
        (values.image, {"bytes": b"no image"}, "no readable image"),
    ],
)
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
    task = Detect()
    task.prepare(table.rows)
    assert task.problems(table.rows) == {3: "box (1, 2, 40, 8) of 'cell' is not inside the image of 12 x 10"}
    empty = Row(tmp_path / "0.jpg", (("cell", (3.0, 2.0, 3.0, 4.0)),), 8)
    assert task.problems([empty]) == {8: "box (3, 2, 3, 4) of 'cell' is empty"}


def test_a_conversation_makes_an_example_for_every_answer(tmp_path):
    talk = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": text} for role, text in talk]
    (tmp_path / "x.jsonl").write_text(__import__("json").dumps({"messages": messages}))
    rows = read(tmp_path / "x.jsonl", columns=Instruct.columns).rows
    assert [(row.input, row.target) for row in rows] == [((("user", "a"),), "b"), (tuple(talk[:3]), "d")]
