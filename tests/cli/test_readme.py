"""The README: every command and every line of Python in it runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from graftune import bases
from training import test_tasks as tiny
from training.tiny import generation_rows, save_base, write

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("graftune")]


COMMANDS = commands(README)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the README's commands name, small."""
    folder = tmp_path_factory.mktemp("readme")
    write(folder / "train.jsonl", generation_rows(12))
    for name in ("dev", "test"):
        write(folder / f"{name}.jsonl", generation_rows(4))
    for name, count in (("train", 24), ("dev", 8)):
        rows = [f"{'good' if n % 2 else 'bad'} {n},{'pos' if n % 2 else 'neg'}" for n in range(count)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    tags = [
        row
        for n in range(6)
        for row in (
            {"tokens": ["Anna", f"sails {n}"], "tags": ["B-PER", "O"]},
            {"tokens": [f"so {n}", "Bo"], "tags": ["O", "B-PER"]},
        )
    ]
    for name in ("ner", "ner-dev"):
        write(folder / f"{name}.jsonl", tags)
    for split in ("train", "val"):
        for number in range(6):
            _cell(folder / "voc" / split, number)
    save_base(folder / "my-model", "llama", 1024)
    save_base(folder / "encoder", "bert")
    shutil.copytree(bases.path("tiny-encoder"), folder / "masked-lm")  # its words for the labels are one token each
    shutil.copytree(tiny.yolos(folder / "made"), folder / "yolos")
    (folder / "recipe.yaml").write_text(blocks(README, "yaml")[0])
    return folder


def _cell(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / f"{number}.png")
    box = "<bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
    (folder / f"{number}.xml").write_text(f"<annotation><object><name>cell</name>{box}</object></annotation>")


def test_both_readmes_have_the_same_commands():
    assert commands(README) == commands(CHINESE)
    assert [block.split("#")[0] for block in blocks(README, "yaml")] == [
        block.split("#")[0] for block in blocks(CHINESE, "yaml")
    ]
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("words", COMMANDS, ids=[f"{n}-{words[1]}" for n, words in enumerate(COMMANDS)])
def test_commands(words, place, graftune, monkeypatch):
    """In their order, in one folder: some need what others have made. `--resume` goes on with what is finished.

    Comparisons do not search here, which takes minutes; `test_comparisons_as_they_stand` does.
    """
    runs(words, place, graftune, monkeypatch, *(["--effort", "none", "--workers", "0"] * (words[1] == "compare")))


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1] == "compare"], ids=" ".join)
def test_comparisons_as_they_stand(words, place, graftune, monkeypatch):
    runs(words, place, graftune, monkeypatch)


def runs(words, place, graftune, monkeypatch, *more):
    monkeypatch.chdir(place)
    done = graftune(*words[1:], *more)
    assert done.code == 0, done.err
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        assert out.exists()
        if words[1] == "compare":
            lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
            failed = {line["method"] for line in lines if line["status"] == "failed"}
            assert failed <= {"few-shot", "hard-prompt", "prompt", "p-tuning"}  # what has no place on tags or images
            assert len(lines) > len(failed)


@pytest.mark.slow
def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), {})
