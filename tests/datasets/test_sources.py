"""Sources: what files of every family hold, and what is said of those that are broken."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

import datasets
from graftune.datasets import Row, Rows, read, values
from graftune.datasets.columns import Columns, not_read
from graftune.datasets.rows import read_inputs
from graftune.datasets.sources import arrow, hub, kinds
from graftune.errors import GraftuneError
from graftune.tasks.translate import Translate

WORDS = Columns(("tokens",), ("tags",), values.words, values.words)
PICTURES = Columns(("image", "file_name", "img"), ("label",), values.image, values.label)
OBJECTS = Columns(("image",), ("objects",), values.image, values.objects)
LABELS = Columns(("text",), ("labels",), values.text, values.labels)
AB = [("a", "1"), ("b", "0")]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def contents(*arguments, **options) -> list[tuple[object, object]]:
    return [(row.input, row.target) for row in read(*arguments, **options).rows]


def message(*arguments, **options) -> str:
    with pytest.raises(GraftuneError) as caught:
        read(*arguments, **options)
    return str(caught.value)


LINES = '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'
LIST = '[{"text": "a", "label": 1},\n {"text": "b", "label": 0}]'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", LINES),
        ("x.ndjson", LINES.replace("\n", "\r\n")),
        ("x.jsonl", "\ufeff" + LINES),
        ("x.json", LINES),
        ("x.txt", LINES),
        ("x.csv", LINES),
        ("x", LINES),
        ("x.jsonl.txt", LINES),
        ("x.json", LIST),
        ("x.jsonl", LIST),
        ("x.data", LIST),
        ("x.json", json.dumps({"data": json.loads(LIST), "splits": [{"name": "train"}]})),
        ("x.json", json.dumps({"examples": json.loads(LIST)})),
        ("x.json", '{"text": ["a", "b"], "label": [1, 0]}'),
        ("x.json", '{"0": {"text": "a", "label": 1}, "1": {"text": "b", "label": 0}}'),
        ("x.json", '{"columns": ["text", "label"], "index": [5, 6], "data": [["a", 1], ["b", 0]]}'),
        ("x.json", '{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}'),
        ("x.csv", "text,label\na,1\nb,0\n"),
        ("x.csv", "sep=;\r\ntext;label\r\na;1\r\nb;0\r\n"),
        ("x.csv", "\ufefftext;label\r\na;1\r\nb;0\r\n"),
        ("x.csv", "text|label\na|1\nb|0"),
        ("x.csv", "label\ttext\n1\ta\n0\tb"),
        ("x.jsonl", "text,label\na,1\nb,0\n"),
        ("x.dat", "text;label\na;1\nb;0\n"),
        ("x.tsv", "text\tlabel\na\t1\nb\t0\n"),
        ("x.txt", "text\tlabel\na\t1\nb\t0\n"),
    ],
)
def test_a_file_is_what_is_in_it(tmp_path, name, text):
    assert contents(write(tmp_path / name, text)) == AB
    assert contents(write(tmp_path / f"{name}.gz", gzip.compress(text.encode()))) == AB
    assert contents(write(tmp_path / f"{name}.zst", zstd(text.encode()))) == AB
    assert contents(write(tmp_path / name, text.lstrip("\ufeff").encode("utf-16"))) == AB


def test_one_object_is_one_row(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    columns = Columns(joint={"messages": values.conversation}, examples=lambda given, wanted: [(len(given), wanted)])
    for name in ("x.json", "x.jsonl", "x"):
        assert contents(write(tmp_path / name, json.dumps({"messages": talk})), columns=columns)[0][0] == 2
        assert contents(write(tmp_path / name, '{"text": "a", "label": "b"}')) == [("a", "b")]


def test_the_separator_is_the_one_that_fits_all_rows(tmp_path):
    text = 'text;label\n"a;b";1\nHello, you;0\n1,5;2\n'
    assert contents(write(tmp_path / "x.csv", text)) == [("a;b", "1"), ("Hello, you", "0"), ("1,5", "2")]
    text = "text, or words;label\na b;1\n"
    assert contents(write(tmp_path / "y.csv", text), "text, or words") == [("a b", "1")]
    said = message(write(tmp_path / "z.csv", "text;label\na;1\nb;1;2\n"))
    assert "line 3: 3 fields where the header has 2 (separated by ';')" in said
    assert "separated by ','" in message(write(tmp_path / "z.csv", 'text,label\n"a,1\n'))


def test_a_table_whose_first_line_is_a_row_has_no_header(tmp_path):
    rows = [("ham", "see you, then"), ("spam", "you won"), ("ham", "at noon"), ("ham", "no"), ("spam", "free")]
    for name, between in (("SMSSpamCollection", "\t"), ("x.csv", ";"), ("x.tsv", "\t")):
        path = write(tmp_path / name, "".join(f"{label}{between}{text}\r\n" for label, text in rows))
        table = read(path, "column 2", "column 1")
        assert [(row.target, row.input, row.line) for row in table.rows] == [(*row, n) for n, row in enumerate(rows, 1)]
        assert [table.rows[place].input for place in (4, 0)] == ["free", "see you, then"]
        assert table.remarks == ("no line of names is seen: the columns are column 1, column 2",)
        assert "columns 'column 1', 'column 2'" in message(path)
    twice = "text,label\na,x\nb,y\ntext,label\nc,x\ntext,label\n"  # files put together have their header again
    said = message(write(tmp_path / "y.csv", twice))
    assert "2 bad lines" in said
    assert "line 4: the names of the columns again" in said


def test_lines_of_fasttext(tmp_path):
    path = write(tmp_path / "x.txt", "__label__good a fine film\n__label__bad  a poor film \n\n")
    assert contents(path) == [("a fine film", "good"), ("a poor film", "bad")]
    path = write(tmp_path / "x.train", "__label__a __label__b one\n__label__b two __label__a\n")
    columns = Columns(("text",), ("label",), values.text, values.labels)
    assert contents(path, columns=columns) == [("one", ("a", "b")), ("two __label__a", ("b",))]


def test_rows_of_the_hubs_viewer(tmp_path):
    features = [
        {"feature_idx": 0, "name": "text", "type": {"dtype": "string", "_type": "Value"}},
        {"feature_idx": 1, "name": "label", "type": {"names": ["no", "yes"], "_type": "ClassLabel"}},
    ]
    rows = [{"row_idx": n, "row": {"text": t, "label": n}, "truncated_cells": []} for n, t in enumerate("ab")]
    text = json.dumps({"features": features, "rows": rows, "num_rows_total": 2, "partial": False})
    assert contents(write(tmp_path / "first-rows.json", text)) == [("a", "no"), ("b", "yes")]


def test_columns_without_a_name_and_names_with_space(tmp_path):
    path = write(tmp_path / "x.csv", ", text, label,,\n0, a, 1,,\n")
    assert read(path).columns == ("Unnamed: 0", " text", " label", "Unnamed: 3", "Unnamed: 4")
    assert not_read(read(path).columns, (" text", " label")) == []


def test_conversations_without_an_answer_are_inputs(tmp_path):
    columns = Columns(joint={"messages": values.conversation}, prompts={"messages": values.prompt})
    path = write(tmp_path / "x.jsonl", '{"messages": [{"role": "user", "content": "a"}]}')
    assert read_inputs(path, columns=columns)[0].input == ({"role": "user", "content": "a"},)
    assert "no message of the assistant" in message(path, columns=columns)


def test_quotes_in_tsv_are_text_unless_they_hold_a_field_together(tmp_path):
    plain = 'text\tlabel\n"Yes\t1\nno"\t0\n'
    assert contents(write(tmp_path / "x.tsv", plain)) == [('"Yes', "1"), ('no"', "0")]
    quoted = 'text\tlabel\n"two\nlines"\t1\n"a ""b"""\t0\n'
    assert contents(write(tmp_path / "y.tsv", quoted)) == [("two\nlines", "1"), ('a "b"', "0")]


def test_long_whole_numbers_keep_their_digits(tmp_path):
    number = 12345678901234567890123
    path = write(tmp_path / "x.jsonl", f'{{"text": {number}, "label": 18446744073709551616}}')
    assert contents(path) == [(str(number), "18446744073709551616")]


def test_lines_that_are_no_utf8_are_bad_lines(tmp_path):
    path = write(tmp_path / "x.jsonl", LINES.encode() + b'{"text": "\xff", "label": 1}\n')
    assert "line 3: not UTF-8 (byte 0xff at place 11)" in message(path)
    assert "not UTF-8" in message(write(tmp_path / "x.csv", b"text,label\n\xff,1"))
    assert "not UTF-16" in message(write(tmp_path / "y.csv", b"\xff\xfet\0e\0x"))


@pytest.mark.parametrize("ends", ["gz", "zst", "bz2", "xz"])
def test_packed_files_that_end_too_soon_are_refused(tmp_path, ends):
    import bz2
    import lzma

    pack = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress, "xz": lzma.compress}[ends]
    text = "".join(json.dumps({"text": str(random.random()), "label": "x"}) + "\n" for _ in range(500)).encode()
    assert len(contents(write(tmp_path / f"x.jsonl.{ends}", pack(text) + pack(text)))) == 1000
    assert "cannot be unpacked" in message(write(tmp_path / f"x.jsonl.{ends}", pack(text)[:-40]))


def test_broken_documents_are_refused_with_the_place(tmp_path):
    assert "line 2 column 1" in message(write(tmp_path / "x.json", '[{"text": "a"},\n'))
    assert "a JSON int" in message(write(tmp_path / "x.json", "3"))
    assert "'train', 'test'" in message(write(tmp_path / "x.json", json.dumps({"train": [{}], "test": [{}]})))
    text = message(write(tmp_path / "x.json", '[{"text": "a", "label": "b"}, 3]'))
    assert "line 2: a JSON int where an object was expected" in text
    deep = '[{"text":' + "[" * 100_000
    assert "nested too deeply" in message(write(tmp_path / "x.json", deep))


CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n# a comment = 1\n# SYM O\nGerman JJ B-MISC\n\n\n"


@pytest.mark.parametrize("name", ["x.conll", "x.bio", "x.iob", "x.iob2", "x.txt", "x", "x.eng"])
def test_conll_columns(tmp_path, name):
    rows = read(write(tmp_path / name, CONLL), columns=WORDS).rows
    assert [(row.input, row.target, row.line) for row in rows] == [
        (("EU", "rejects"), ("B-ORG", "O"), 3),
        (("#", "German"), ("O", "B-MISC"), 7),
    ]


def test_conll_lines_without_a_tag_are_bad(tmp_path):
    text = message(write(tmp_path / "x.conll", "EU B-ORG\nrejects\n\nGerman O\n"), columns=WORDS)
    assert "line 2: 1 field where the first line has 2" in text
    table = read(tmp_path / "x.conll", columns=WORDS, share=0.5)
    assert [row.input for row in table.rows] == [("German",)]
    assert "a word and its tag" in message(write(tmp_path / "y.conll", "EU\nrejects\n"), columns=WORDS)


def test_conll_words_may_be_counted(tmp_path):
    text = "# sent_id = 1\n1\tEU\tB-ORG\n2\trejects\tO\n\n1\t1\tO\n"
    rows = read(write(tmp_path / "x.conll", text), columns=WORDS).rows
    assert [row.input for row in rows] == [("EU", "rejects"), ("1",)]
    assert read(write(tmp_path / "x.conll", "1 O\n2 O\n"), columns=WORDS).rows[0].input == ("1", "2")


def test_text_is_a_line_a_text(tmp_path):
    rows = read_inputs(write(tmp_path / "x.txt", "a, b\r\n\n  c O\n\n"))
    assert [(row.input, row.line) for row in rows] == [("a, b", 1), ("  c O", 3)]


def test_several_labels_in_csv(tmp_path):
    path = write(tmp_path / "x.csv", 'text,labels\na,"x, y"\nb,\nc,x|z\n')
    assert contents(path, columns=LABELS) == [("a", ("x", "y")), ("b", ()), ("c", ("x", "z"))]


NAMES = datasets.ClassLabel(names=["no", "yes"])
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": NAMES,
        "labels": datasets.List(NAMES),
        "old": datasets.Sequence({"category": NAMES, "bbox": datasets.List(datasets.Value("float32"))}),
        "new": datasets.List({"category": NAMES, "bbox": datasets.List(datasets.Value("float32"))}),
    }
)
BOXES = [{"category": 1, "bbox": [1, 2, 3, 4]}]
NAMED = datasets.Dataset.from_dict(
    {
        "text": ["a", "b", "c"],
        "label": [1, 0, -1],
        "labels": [[1, 0], [], None],
        "old": [{"category": [1], "bbox": [[1, 2, 3, 4]]}] * 3,
        "new": [BOXES, [], None],
    },
    features=FEATURES,
)


def kept(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> str | Path:
    """The data set with names of classes, in one of the ways that people have it."""
    if way == "hub":
        asked = lambda name, config, split: {("set", "en", "dev"): NAMED}[name, config, split]
        monkeypatch.setattr(datasets, "load_dataset", asked)
        return "set@en:dev"
    if way in ("saved", "saved dict"):
        (NAMED if way == "saved" else datasets.DatasetDict(train=NAMED, test=NAMED)).save_to_disk(folder / "saved")
        return folder / "saved"
    if way == "large":
        monkeypatch.setattr(arrow, "IN_MEMORY", 0)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    if way == "packed":
        NAMED.to_parquet(folder / "y.parquet")
        return write(folder / "x.parquet.gz", gzip.compress((folder / "y.parquet").read_bytes()))
    NAMED.to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


@pytest.mark.parametrize("way", ["parquet", "large", "packed", "saved", "saved dict", "hub"])
def test_classes_have_their_names(tmp_path, monkeypatch, way):
    source = kept(tmp_path, way, monkeypatch)
    text = Columns(("text",), ("label",))
    assert contents(source, columns=text, share=0.5) == [("a", "yes"), ("b", "no")]
    assert "line 3: no 'label'" in message(source, columns=text)
    assert contents(source, target="labels", columns=LABELS, share=0.5) == [("a", ("yes", "no")), ("b", ())]
    boxes = Columns(("text",), ("old",), target=values.objects)
    assert contents(source, columns=boxes)[2] == ("c", (("yes", (1.0, 2.0, 4.0, 6.0)),))
    assert contents(source, target="new", columns=boxes, share=0.5)[:1] == [("a", (("yes", (1.0, 2.0, 4.0, 6.0)),))]


def test_parquet_of_pandas_and_others(tmp_path):
    table = pyarrow.table(
        {
            "text": pyarrow.array(["a", "b"]).dictionary_encode(),
            "label": pyarrow.array([1, 0], pyarrow.uint8()),
            "price": [Decimal("1.5"), None],
            "__index_level_0__": [0, 1],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert contents(tmp_path / "x.parquet") == AB
    write(tmp_path / "without", (tmp_path / "x.parquet").read_bytes())
    assert contents(tmp_path / "without") == AB
    write(tmp_path / "x.csv", (tmp_path / "x.parquet").read_bytes())
    assert contents(tmp_path / "x.csv") == AB


@pytest.mark.parametrize("name", ["x.feather", "x.arrow", "x", "x.csv"])
def test_feather_files(tmp_path, name):
    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0]})
    for compression in ("uncompressed", "lz4", "zstd"):
        pyarrow.feather.write_feather(table, tmp_path / name, compression=compression)
        assert contents(tmp_path / name) == AB


def test_translations_have_a_column_for_each_language(tmp_path):
    pairs = [{"translation": {"en": "good", "de": "gut"}, "id": 4}, {"translation": {"en": "bad", "de": "schlecht"}}]
    write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, pairs)))
    languages = datasets.Features({"translation": datasets.Translation(["en", "de"])})
    texts = [{"translation": one["translation"]} for one in pairs]
    datasets.Dataset.from_list(texts, features=languages).to_parquet(tmp_path / "y.parquet")
    for name in ("x.jsonl", "y.parquet"):
        assert contents(tmp_path / name, "de", "en") == [("gut", "good"), ("schlecht", "bad")]
        table = read(tmp_path / name, columns=Translate.columns)
        assert [(row.input, row.target, row.line) for row in table.rows] == [("good", "gut", 1), ("bad", "schlecht", 2)]
        assert set(table.columns[:2]) == {"en", "de"}
    write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, [*pairs, {"translation": {"en": "x"}}, {"translation": 3}])))
    text = message(tmp_path / "x.jsonl", "en", "de")
    assert "line 3: no 'de'" in text
    assert "line 4: no 'en'; no 'de'" in text
    write(tmp_path / "z.jsonl", '{"source": "good", "translation": "gut"}')
    assert contents(tmp_path / "z.jsonl", columns=Translate.columns) == [("good", "gut")]


def test_arrow_files(tmp_path):
    NAMED.save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    file.rename(tmp_path / "x.arrow")
    assert contents(tmp_path / "x.arrow", columns=Columns(("text",), ("label",)), share=0.5) == [
        ("a", "yes"),
        ("b", "no"),
    ]
    assert "not a readable Arrow file" in message(write(tmp_path / "y.arrow", b"nothing"))


def test_a_folder_of_several_sets_is_refused_and_a_pattern_names_one(tmp_path):
    for split in ("train", "test"):
        for number in range(2):
            (tmp_path / "data").mkdir(exist_ok=True)
            table = pyarrow.table({"text": [f"{split}{number}"], "label": ["x"]})
            pyarrow.parquet.write_table(table, tmp_path / "data" / f"{split}-{number}-of-2.parquet")
    text = message(tmp_path)
    assert "several data sets" in text
    assert "test-*-of-*.parquet, train-*-of-*.parquet" in text
    assert contents(f"{tmp_path}/data/train-*.parquet") == [("train0", "x"), ("train1", "x")]
    assert "the pattern names no files" in message(f"{tmp_path}/data/dev-*.parquet")
    assert "the pattern names folders" in message(f"{tmp_path}/dat*")


def test_shards_of_any_kind_are_one_data_set(tmp_path):
    lines = [{"text": f"row {number}", "label": number % 2} for number in range(30)]
    for shard, part in enumerate((lines[:3], lines[3:4], lines[4:])):  # shard-10 comes behind shard-2
        text = "".join(json.dumps(one) + "\n" for one in part)
        write(tmp_path / "lines" / f"shard-{(1, 2, 10)[shard]}.jsonl", text)
        rows = "".join(f'"{one["text"]}",{one["label"]}\n' for one in part)
        write(tmp_path / "tables" / f"{(1, 2, 10)[shard]}.csv.gz", gzip.compress(f"text,label\n{rows}".encode()))
    expected = [(one["text"], str(one["label"])) for one in lines]
    for source in (tmp_path / "lines", f"{tmp_path}/lines/*.jsonl", tmp_path / "tables"):
        table = read(source, columns=Columns(target=values.label))
        assert [(row.input, row.target) for row in table.rows] == expected
        assert [table.rows[place].input for place in (29, 0, 4, 3)] == ["row 29", "row 0", "row 4", "row 3"]
        assert len({row.line for row in table.rows}) == 30
        kept = table.without({table.rows[5].line: "bad", table.rows[3].line: "bad"}, 1.0, "")
        assert [row.input for row in kept.rows] == [f"row {n}" for n in range(30) if n not in (5, 3)]
    write(tmp_path / "lines" / "shard-2.jsonl", '{"text": "a"}\nbroken\n')
    text = message(tmp_path / "lines")
    assert "shard-2.jsonl, line 2: broken JSON" in text
    write(tmp_path / "lines" / "test.jsonl", LINES)
    assert "several data sets" in message(tmp_path / "lines")


def test_sentences_of_several_files_keep_lines_of_their_own(tmp_path):
    for number in range(2):
        write(tmp_path / f"{number}.conll", "a O\nb O\nc B-X\n\nd O\n\n")
    table = read(tmp_path, columns=WORDS)
    assert [(row.input, row.line) for row in table.rows] == [
        (("a", "b", "c"), 1), (("d",), 5), (("a", "b", "c"), 6), (("d",), 10),
    ]  # fmt: skip


def test_a_zip_holds_one_file(tmp_path):
    import zipfile

    def packed(name: str, *files: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for one in files:
                file.writestr(one, LINES)
        return tmp_path / name

    assert contents(packed("x.zip", "x/train.jsonl", "__MACOSX/x/._train.jsonl")) == AB
    text = message(packed("y.zip", "train.jsonl", "test.jsonl"))
    assert "a .zip with 2 files" in text
    assert "train.jsonl, test.jsonl" in text
    assert "save the sheet as CSV" in message(packed("z.xlsx", "xl/workbook.xml", "xl/styles.xml"))
    assert "cannot be unpacked" in message(write(tmp_path / "w.zip", (tmp_path / "x.zip").read_bytes()[:60]))


def test_the_split_that_is_read_of_a_saved_dictionary_is_said(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["1", "0"]})
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(tmp_path)
    assert read(tmp_path).remarks == (f"the split 'train' is read; there are also {tmp_path / 'validation'}",)
    assert contents(tmp_path / "validation") == AB


def test_yolo_has_its_boxes_in_shares_and_its_names_in_a_file(tmp_path, monkeypatch):
    for split in ("train", "valid"):  # as Roboflow exports them
        picture(tmp_path / split / "images" / "a.png", 1)  # 32 x 32
        picture(tmp_path / split / "images" / "b.png", 2)
        write(tmp_path / split / "labels" / "a.txt", "1 0.5 0.5 0.5 0.25\n0 0.25 0.75 0.5 0.5\n")
    assert "the names of the classes are not known" in message(tmp_path / "valid" / "images", columns=OBJECTS)
    write(tmp_path / "data.yaml", "train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")
    expected = [(("dog", (8, 12, 24, 20)), ("cat", (0, 16, 16, 32))), ()]
    for place in ("train/images", "train", "valid", ""):
        table = read(tmp_path / place, columns=OBJECTS)
        assert [row.target for row in table.rows] == expected
    monkeypatch.chdir(tmp_path)
    assert [row.target for row in read("train", columns=OBJECTS).rows] == expected
    assert table.remarks == (f"the images in {tmp_path / 'train' / 'images'} are read",)
    for line, said in (("2 0.5 0.5 0.5 0.5", "no box of one of 2 classes"), ("cat 1 1", "no class and four numbers")):
        write(tmp_path / "train" / "labels" / "b.txt", line)
        assert f"line 2: b.txt: {line!r} is {said}" in message(tmp_path, columns=OBJECTS)


def picture(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32), shade).save(path)
    return path


def test_folders_of_images(tmp_path):
    for split in ("train", "test"):
        for number, label in enumerate(("cat", "dog", ".cache")):
            picture(tmp_path / split / label / f"{number}.png", number)
    text = message(tmp_path, columns=PICTURES)
    assert "several data sets" in text
    assert "with test, train\n" in text
    assert f"{tmp_path / 'train'}" in text
    assert contents(tmp_path / "train", columns=PICTURES) == [
        (tmp_path / "train" / "cat" / "0.png", "cat"),
        (tmp_path / "train" / "dog" / "1.png", "dog"),
    ]
    write(tmp_path / "train" / "dog" / "2.png", b"broken")
    assert "line 3: 'image' is no readable image" in message(tmp_path / "train", columns=PICTURES)
    (tmp_path / "empty").mkdir()
    assert "folder, not a file" in message(tmp_path / "empty")


def test_splits_of_images_are_no_classes(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.png", 1)
    assert "folder, not a file" in message(tmp_path, columns=PICTURES)
    write(tmp_path / "train" / "metadata.jsonl", '{"file_name": "a.png", "label": "cat"}')
    text = message(tmp_path, columns=PICTURES)
    assert "the data set lies further down" in text
    assert f"name it: {tmp_path / 'train'}" in text
    write(tmp_path / "test" / "metadata.csv", "file_name,label\na.png,dog\n")
    assert "with test, train\n" in message(tmp_path, columns=PICTURES)
    assert contents(tmp_path / "test", columns=PICTURES) == [(tmp_path / "test" / "a.png", "dog")]


def test_the_only_data_file_of_a_folder_is_the_data(tmp_path):
    write(tmp_path / "LICENSE.txt", "free")
    write(tmp_path / "README.md", "words")
    write(tmp_path / ".hidden.csv", "words")
    assert "folder, not a file" in message(tmp_path)
    write(tmp_path / "train.jsonl.gz", gzip.compress(LINES.encode()))
    assert contents(tmp_path) == AB
    write(tmp_path / "dev.csv", "text,label\na,b\n")
    text = message(tmp_path)
    assert "with dev.csv, train.jsonl.gz\n" in text
    assert f"name one of them: {tmp_path / 'train.jsonl.gz'}" in text


@pytest.mark.parametrize(("xml", "images"), [("", ""), ("Annotations", "JPEGImages"), ("annotations", ""), ("", "img")])
def test_pascal_voc_has_its_images_beside_or_in_a_folder_beside(tmp_path, xml, images):
    picture(tmp_path / "set" / images / "a.png", 1)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    text = f"<annotation><filename>a.jpg</filename><object><name>cat</name>{box}</object></annotation>"
    write(tmp_path / "set" / xml / "a.xml", text)
    for folder in {tmp_path / "set", tmp_path / "set" / xml}:
        rows = contents(folder, columns=OBJECTS)
        assert rows == [(tmp_path / "set" / images / "a.png", (("cat", (1.0, 2.0, 3.0, 4.0)),))]


def coco(*annotations: dict, **more) -> str:
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    document = {"images": images, "annotations": list(annotations), "categories": [{"id": 5, "name": "cat"}], **more}
    return json.dumps(document)


def test_coco(tmp_path):
    cat = {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}
    text = coco(cat, {**cat, "iscrowd": 1, "bbox": None})
    for place, folder in (("x.json", ""), ("annotations/x.json", "images"), ("x.json", "pictures")):
        base = tmp_path / f"{place}{folder}".replace("/", "-")
        for number, name in enumerate("ab"):
            picture(base / folder / f"{name}.png", number)
        rows = read(write(base / place, text), columns=OBJECTS).rows
        assert [(row.input.name, row.target) for row in rows] == [
            ("a.png", (("cat", (1.0, 2.0, 4.0, 6.0)),)),
            ("b.png", ()),
        ]
    assert list(read(base, columns=OBJECTS).rows) == list(rows)
    for wrong, said in [
        ({**cat, "category_id": 6}, "line 1: an object of the category 6, which is not listed"),
        ({**cat, "bbox": [1, 2, 3]}, "line 1: 'objects' has a box of 3 numbers for 'cat'"),
        ({"image_id": 7, "category_id": 5}, "line 1: 'objects' has an object without"),
    ]:
        assert said in message(write(base / "x.json", coco(wrong)), columns=OBJECTS)
    text = message(write(base / "x.json", coco(cat, images=[{"id": 7}, 3])), columns=OBJECTS)
    assert "2 bad lines" in text
    sizes = [{"id": 7, "file_name": "a.png", "width": 64, "height": 32}]
    text = message(write(base / "x.json", coco(cat, images=sizes)), columns=OBJECTS)
    assert "line 1: a.png is 32 x 32, and its boxes are for 64 x 32" in text
    text = message(write(base / "x.json", coco(cat, {**cat, "image_id": 9})), columns=OBJECTS)
    assert "objects of 1 images that are not listed (image_id 9)" in text
    table = read(write(base / "x.json", coco(cat, {**cat, "iscrowd": 1})), columns=OBJECTS)
    assert table.remarks == ("1 crowds (iscrowd) are left out",)


def test_rows_are_a_sequence(tmp_path):
    lines = "".join(json.dumps({"input": f"{n}", "target": "t"}) + "\n" for n in range(20))
    rows = read(write(tmp_path / "x.jsonl", lines)).rows
    made = [Row(f"{n}", "t", n + 1) for n in range(20)]
    assert isinstance(rows, Rows)
    assert list(rows) == made
    assert rows == made
    assert rows != made[:-1]
    assert (rows[0], rows[-1], rows[np.int64(3)]) == (made[0], made[-1], made[3])
    for chosen in (slice(2, 9, 3), slice(None, None, -1), slice(-3, None), slice(5, 5)):
        assert rows[chosen] == made[chosen]
    assert random.Random(0).sample(rows, 5) == random.Random(0).sample(made, 5)
    assert rows.select([3, 1, 1]) == [made[3], made[1], made[1]]
    assert rows[4:].without([6, 7, 99]) == made[4:5] + made[7:]
    with pytest.raises(IndexError):
        rows[20]
    table = read(tmp_path / "x.jsonl")
    assert table.keep(list(rows)[:2]).rows == made[:2]
    assert table.columns == ("input", "target")


def test_rows_of_one_record_are_told_apart(tmp_path):
    columns = Columns(
        ("input",), ("target",), joint={"pairs": values.words}, examples=lambda given, wanted: [(g, "t") for g in given]
    )
    rows = read(write(tmp_path / "x.jsonl", '{"pairs": ["a", "b"]}\n{"pairs": ["c"]}'), columns=columns).rows
    assert [(row.input, row.line) for row in rows] == [("a", 1), ("b", 1), ("c", 2)]
    assert [row.input for row in rows[::-1]] == ["c", "b", "a"]
    assert rows[1].input == "b"
    assert [row.input for row in rows.without([2])] == ["a", "b"]


def test_a_file_that_changes_under_its_rows_is_said(tmp_path):
    table = read(write(tmp_path / "x.jsonl", LINES))
    write(tmp_path / "x.jsonl", "x" * len(LINES))
    with pytest.raises(GraftuneError, match="cannot be read any more"):
        table.rows[0]
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(GraftuneError, match="cannot be read any more"):
        list(table.rows)


@pytest.mark.slow
def test_two_million_lines_hold_few_bytes_each(tmp_path):
    import tracemalloc

    with (tmp_path / "x.jsonl").open("w") as file:
        for number in range(2_000_000):
            file.write(f'{{"input": "question {number}", "target": "{number % 7}"}}\n')
    tracemalloc.start()
    table = read(tmp_path / "x.jsonl")
    kept = table.without({3: "x"}, 1.0, "good rows")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept.rows) == 1_999_999
    assert held / 2e6 < 17  # an offset of 8 bytes, and 4 for a row in each of the two tables
    assert peak / 2e6 < 25


def test_places_count_from_the_file_wherever_the_command_runs(tmp_path, monkeypatch):
    picture(tmp_path / "set" / "images" / "a.png", 1)
    picture(tmp_path / "set" / "images" / "b.png", 2)
    write(tmp_path / "set" / "annotations" / "x.json", coco({"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}))
    write(tmp_path / "set" / "x.csv", "image,label\nimages/a.png,cat\n")
    monkeypatch.chdir(tmp_path)
    assert len(read("set/annotations/x.json", columns=OBJECTS).rows) == 2
    assert contents("set/x.csv", columns=PICTURES) == [(Path("set/images/a.png"), "cat")]


def test_rows_of_csv_are_read_from_their_places(tmp_path):
    rng = random.Random(3)
    written = [["text", "label"]]
    for number in range(400):
        text = "".join(
            rng.choice(["a", '"', ",", ";", "\n", "\r\n", "é", "\t", "日"]) for _ in range(rng.randint(0, 9))
        )
        written.append([f"{number}{text}", str(number % 3)])
    for separator, end, encoding in itertools.product(",;\t|", ("\n", "\r\n"), ("utf-8", "utf-8-sig", "utf-16")):
        with (tmp_path / "x.csv").open("w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=separator, lineterminator=end).writerows(written)
        table = read(tmp_path / "x.csv")
        assert [(row.input, row.target) for row in table.rows] == [tuple(row) for row in written[1:]]
        places = rng.sample(range(400), 50)
        assert [row.input for row in table.rows.select(places)] == [written[place + 1][0] for place in places]
        lines = [row.line for row in table.rows]
        assert lines == sorted(set(lines))
        kept = table.without({lines[7]: "bad"}, 1.0, "")
        assert [row.line for row in kept.rows] == lines[:7] + lines[8:]


def test_a_table_of_another_extension_may_be_longer_than_its_head(tmp_path):
    with (tmp_path / "x.dat").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([f"two\nlines {'a' * 500} {n}", n % 2] for n in range(500))])
    assert (tmp_path / "x.dat").stat().st_size > 2 * kinds.HEAD
    assert len(read(tmp_path / "x.dat").rows) == 500


def test_a_csv_that_changes_under_its_rows_is_said(tmp_path):
    path = write(tmp_path / "x.csv", "text,label\nhello,1\nworld,0\n")
    table = read(path)
    for other in (
        b'text,label\n"ello,1\nworld,0\n',
        b"text,label\nh,ll,1\nworld,0\n",
        b"text,label\nh\xffllo,1\nworld,0\n",
    ):
        write(path, other)
        with pytest.raises(GraftuneError, match="cannot be read any more"):
            table.rows[0]


@pytest.mark.slow
def test_a_million_rows_of_csv_hold_few_bytes_each(tmp_path):
    import tracemalloc

    with (tmp_path / "x.csv").open("w") as file:
        file.write("input;target\n")
        for number in range(1_000_000):
            file.write(f'"question, {number}";{number % 7}\n')
    tracemalloc.start()
    table = read(tmp_path / "x.csv")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.rows) == 1_000_000
    assert held / 1e6 < 20  # a place of 8 bytes, a line number and a row of 4 each
    assert peak / 1e6 < 30


def on_the_hub(folder: Path, **configs: str) -> str:
    """A data set as the Hub has it, which `datasets` loads from the disk as well."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in splits.split():
            lines += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
            write(folder / config / f"{split}.jsonl", f'{{"text": "{config}", "label": "{split}"}}\n')
    write(folder / "README.md", "\n".join([*lines, "---", ""]))
    return str(folder)


@pytest.mark.parametrize(
    ("configs", "asked", "typed"),
    [
        ({"en": "train test", "de": "train"}, "", "@en:train"),
        ({"en": "train test", "de": "train"}, ":train[:50%]", "@en:train[:50%]"),
        ({"en": "train", "de": "test"}, ":test", "@de:test"),
        ({"en": "train", "de": "test"}, "@fr:test", "@de:test"),
        ({"en": "train test", "de": "train"}, "@en:dev", "@en:train"),
        ({"default": "test dev"}, "", ":test"),
        ({"default": "train dev"}, ":validation", ":train"),
        ({"default": "train dev"}, "@fr", ":train"),
    ],
)
def test_the_error_says_which_config_and_split_to_type(tmp_path, monkeypatch, configs, asked, typed):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    name = on_the_hub(tmp_path / "set", **configs)
    with pytest.raises(GraftuneError) as caught:
        hub.read(f"{name}{asked}", "")
    assert f"such as {name}{typed}\n" in f"{caught.value}\n"
    (record,) = hub.read(f"{name}{typed.partition('[')[0]}", "").at([0])
    config = typed.removeprefix("@").partition(":")[0]
    assert record.values == {"text": config or "default", "label": typed.partition(":")[2].partition("[")[0]}
