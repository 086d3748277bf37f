"""Predictors: a run, loaded again, answers and evaluates as it did when it was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score
from transformers import AutoTokenizer, GenerationConfig

import graftune as gt
from graftune.datasets import Row, read
from graftune.errors import GraftuneError
from training import test_tasks as tiny
from training.tiny import Toys, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictors")


@pytest.fixture(scope="module")
def toys(folder):
    return Toys(folder)


def trained(folder: Path, task: str, base: str, rows: list[dict], **options) -> gt.Predictor:
    data = write(folder / f"{task}.jsonl", rows)
    out = folder / f"run-{task}"
    gt.train(base, gt.LoRA(rank=2), out=out, task=task, train=data, eval=data, max_steps=2, **options)
    return gt.load(out)


@pytest.fixture(scope="module")
def pair(folder, toys):
    rows = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": ("no", "yes")[n % 2]} for n in range(8)]
    return trained(folder, "classify", toys.bert, rows)


@pytest.fixture(scope="module")
def tagger(folder, toys):
    rows = [{"tokens": ["Anna", "sails"], "tags": ["B-PER", "O"]}, {"tokens": ["so", "Bo"], "tags": ["O", "B-PER"]}]
    return trained(folder, "tag", toys.bert, rows)


@pytest.fixture(scope="module")
def extractor(folder, toys):
    rows = [{"question": "who?", "context": "Anna sails.", "answers": "Anna"}] * 2
    return trained(folder, "extract", toys.bert, rows)


@pytest.fixture(scope="module")
def seer(folder):
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(folder / f"{number}.png")
    rows = [{"image": str(folder / f"{n}.png"), "label": ("dark", "light")[n // 2]} for n in range(4)]
    return trained(folder, "image-classify", tiny.vit(folder), rows)


def test_a_run_answers_as_it_did_when_it_was_trained(toys, folder):
    rows = [{"text": f"{'good' if n % 2 else 'bad'} {n}", "label": "yes" if n % 2 else "no"} for n in range(12)]
    data = write(folder / "texts.jsonl", rows)
    out = folder / "run-texts"
    run = gt.train(
        toys.bert, gt.LoRA(rank=2), out=out, task="classify", train=data, eval=data, max_steps=20, lr=1e-2, batch_size=4
    )
    predictor = gt.load(out)
    told = [json.loads(line)["prediction"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    for size in (1, 5, 32):
        assert predictor([row["text"] for row in rows], batch_size=size) == told
        assert predictor([{"text": row["text"]} for row in rows], batch_size=size) == told
    assert predictor(text for text in [rows[3]["text"]] * 2) == [told[3]] * 2
    for given in (data, Path(data), read(data, columns=predictor.task.task.columns), rows):
        assert predictor.evaluate(given).metrics == pytest.approx(run.metrics)
    assert run.metrics["accuracy"] == pytest.approx(accuracy_score([row["label"] for row in rows], told))
    assert predictor([]) == []
    assert len(set(told)) == 2


def test_an_adapter_is_not_read_with_another_tokenizer(toys, tagger, folder, tmp_path):
    shutil.copytree(toys.bert, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(toys.bert)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    first, second = sorted(set(vocabulary) - set(tokenizer.all_special_tokens))[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(GraftuneError, match="another tokenizer"):
        gt.load(folder / "run-tag", base=str(tmp_path / "base"))


def test_inputs_are_what_the_task_reads(pair, tagger, extractor, seer, folder):
    assert len(pair([{"premise": "a", "hypothesis": "b"}])) == 1
    assert pair([Row("a", None, 1, columns={"premise": "a", "hypothesis": "b"})]) == pair(
        [{"premise": "a", "hypothesis": "b"}]
    )
    marked = tagger([["Anna", "sails"], ("so",)])
    assert marked == tagger([{"tokens": ["Anna", "sails"]}, {"tokens": ["so"]}])
    (answer,) = extractor([{"question": "who?", "context": "Anna sails."}])
    assert answer in "Anna sails."
    file = folder / "1.png"
    assert len(set(seer([str(file), file, file.read_bytes(), Image.open(file), {"image": str(file)}]))) == 1


def test_inputs_that_cannot_be_read_are_refused(pair, tagger, extractor, seer):
    for inputs in ("one text", b"bytes", {"premise": "a"}, None, 3):
        with pytest.raises(GraftuneError, match="inputs come as a list"):
            pair(inputs)
    for predictor, given in (
        (pair, None),
        (pair, [1]),
        (tagger, []),
        (tagger, ["a", None]),
        (tagger, 3),
        (seer, b"no image"),
        (seer, numpy.zeros((8, 8, 3), "uint8")),
    ):
        with pytest.raises(GraftuneError, match="bad line"):
            predictor([given])
    for predictor, given, missing in (
        (pair, "a", "premise, hypothesis"),
        (pair, {"premise": "a"}, "premise, hypothesis"),
        (extractor, "who?", "context"),
        (extractor, {"question": "who?", "context": None}, "context"),
    ):
        with pytest.raises(GraftuneError, match="lacks columns") as caught:
            predictor([given])
        assert f"expected: a record with {missing}" in str(caught.value)


def test_data_that_cannot_be_evaluated_is_refused(pair, tagger):
    with pytest.raises(GraftuneError, match="no such file"):
        pair.evaluate("nowhere.jsonl")
    with pytest.raises(GraftuneError, match="cannot guess which columns"):
        pair.evaluate([{"words": "a"}])
    with pytest.raises(GraftuneError, match="no rows"):
        pair.evaluate([])
    with pytest.raises(GraftuneError, match="2 words and 1 tags"):
        tagger.evaluate([{"tokens": ["a", "b"], "tags": ["O"]}])


def test_a_conversation_is_an_input_by_itself(toys, folder):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    predictor = trained(folder, "instruct", toys.long, [{"messages": talk}] * 2, instruct={"max_new_tokens": 2})
    asked = talk[:1]
    assert predictor([asked]) == predictor([{"messages": asked}]) == predictor(["hi"])


def test_what_the_checkpoint_says_of_generation_is_said(toys, folder):
    config = GenerationConfig.from_pretrained(toys.llama)
    config.no_repeat_ngram_size = 2
    base = shutil.copytree(toys.llama, folder / "set")
    config.save_pretrained(base)
    train, _ = toys.data["generate"]
    said: list[str] = []
    options = {"task": "generate", "train": train, "eval": train, "max_steps": 1, "generate": {"max_new_tokens": 2}}
    gt.train(str(base), gt.LoRA(rank=2), out=folder / "said", say=said.append, **options)
    assert "generation from the checkpoint: no_repeat_ngram_size=2 (set generate.generation to change it)" in said
