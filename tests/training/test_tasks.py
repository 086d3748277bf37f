"""Every task from its data to a trained adapter and back: it learns, and a saved adapter gives the run's metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from PIL import Image

from graftune.bases.loading import load_base
from graftune.config.recipe import given
from graftune.datasets.rows import read, read_inputs, rows_of
from graftune.errors import GraftuneError
from graftune.inference.predictor import load
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from graftune.training.budget import budget_of
from graftune.training.prepare import prepare, task_of
from graftune.training.run import train
from graftune.training.step import Step
from graftune.training.tables import read_tables
from graftune.training.trained import encode, encoder_of
from methods_under_test import disturb
from tasks.conftest import byte_level
from training.tiny import saved, small, write

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
PLACES = ("quay", "pier", "bay")


@dataclass(frozen=True)
class Case:
    """A task's base and data, the figure it has to reach in a short run, and options of the recipe."""

    base: str
    rows: list[dict[str, Any]]
    metric: str
    least: float
    inputs: list[str]
    options: dict[str, Any] = field(default_factory=dict)


def bert(folder: Path) -> str:
    tokenizer = byte_level(("[CLS]", "[SEP]"), mask_token="[MASK]")
    config = t.BertConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=0, max_position_embeddings=64)
    return save(folder / "bert", t.BertForMaskedLM(config), tokenizer)


def t5(folder: Path) -> str:
    tokenizer = byte_level(("", "</s>"))
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    config = t.T5Config(d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=2, vocab_size=len(tokenizer), **ids)
    return save(folder / "t5", t.T5ForConditionalGeneration(config), tokenizer)


def llama(folder: Path, positions: int = 96) -> str:
    tokenizer = byte_level()
    config = t.LlamaConfig(
        **SIZES, num_key_value_heads=1, vocab_size=len(tokenizer), max_position_embeddings=positions, pad_token_id=0
    )
    return save(folder / "llama", t.LlamaForCausalLM(config), tokenizer)


def vit(folder: Path) -> str:
    config = t.ViTConfig(**SIZES, image_size=8, patch_size=4, num_channels=3, num_labels=2)
    processor = t.ViTImageProcessor(size={"height": 8, "width": 8})
    return save(folder / "vit", t.ViTForImageClassification(config), processor)


def yolos(folder: Path) -> str:
    config = t.YolosConfig(**SIZES, image_size=[16, 16], patch_size=8, num_detection_tokens=3, num_labels=1)
    processor = t.YolosImageProcessor(size={"height": 16, "width": 16})
    return save(folder / "yolos", t.YolosForObjectDetection(config), processor)


def save(folder: Path, model: Any, processor: Any) -> str:
    torch.manual_seed(0)
    return saved(folder, model, processor)


def picture(folder: Path, name: str, size: int, box: tuple[int, int, int, int], value: int) -> str:
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = value
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return f"{name}.png"


def objects(folder: Path) -> list[dict[str, Any]]:
    boxes = [(0, 0, 16, 16), (16, 16, 32, 32), (0, 16, 16, 32)]
    return [
        {"image": picture(folder, f"o{i}", 32, box, 255), "objects": [{"label": "cell", "box": box}]}
        for i, box in enumerate(boxes)
    ]


def cases(folder: Path) -> dict[str, Case]:
    good = ["good", "bad"]
    shades = [picture(folder, f"s{i}", 8, (0, 0, 8, 8), 40 * i + 20) for i in range(6)]
    texts = [f"we left the {place} at noon" for place in PLACES]
    return {
        "cloze": Case(
            bert(folder),
            [{"text": f"{good[i % 2]} {i}", "label": good[i % 2]} for i in range(8)],
            "accuracy",
            1.0,
            ["good", "bad"],
            {"cloze": {"pattern": "{input} is {mask}.", "words": "first"}},
        ),
        "tag": Case(
            bert(folder),
            [{"tokens": ["at", place, str(i)], "tags": ["O", "B-P", "O"]} for i, place in enumerate(PLACES)],
            "f1",
            1.0,
            ["at bay"],
        ),
        "extract": Case(
            bert(folder),
            [{"question": "where", "context": a, "answers": b} for a, b in zip(texts, PLACES, strict=True)],
            "em",
            100.0,
            [],
            {"extract": {"window": 40, "stride": 4}},
        ),
        "multi-label": Case(
            bert(folder),
            [{"text": f"{' '.join(own)} {i}", "labels": own} for i, own in enumerate((PLACES[:1], PLACES[1:], PLACES))],
            "f1",
            1.0,
            ["quay", "bay"],
        ),
        "regress": Case(
            bert(folder), [{"text": "a" * i, "score": float(i)} for i in range(1, 7)], "pearson", 0.9, ["aaa"]
        ),
        "translate": Case(
            t5(folder),
            [{"source": f"n{i}", "target": word} for i, word in enumerate(PLACES)],
            "chrf",
            99.0,
            ["n0", "n2"],
            {"translate": {"max_new_tokens": 6, "num_beams": 2}},
        ),
        "summarize": Case(
            llama(folder),
            [{"document": f"n{i}", "summary": word} for i, word in enumerate(PLACES)],
            "rougeL",
            99.0,
            ["n1"],
            {"summarize": {"max_new_tokens": 6}},
        ),
        "instruct": Case(
            llama(folder),
            [{"instruction": f"n{i}", "output": word} for i, word in enumerate(PLACES)],
            "rougeL",
            99.0,
            ["n1"],
            {"instruct": {"max_new_tokens": 6}},
        ),
        "image-classify": Case(
            vit(folder),
            [{"image": shade, "label": ["dark", "light"][i > 2]} for i, shade in enumerate(shades)],
            "accuracy",
            1.0,
            [str(folder / shades[0])],
        ),
        "detect": Case(yolos(folder), objects(folder), "map50", 0.9, [str(folder / "o0.png")], {"max_steps": 500}),
    }


NAMES = (
    "cloze",
    "multi-label",
    "tag",
    "extract",
    "regress",
    "translate",
    "summarize",
    "instruct",
    "image-classify",
    "detect",
)


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory) -> tuple[Path, dict[str, Case]]:
    folder = tmp_path_factory.mktemp("tasks")
    return folder, cases(folder)


def options(folder: Path, task: str, case: Case, **more: Any) -> dict[str, Any]:
    file = write(folder / f"{task}.jsonl", case.rows)
    usual = {"batch_size": 8, "max_steps": 150, "lr": 2e-2, "precision": "fp32"}
    return {"task": task, "train": file, "eval": file, **usual, **case.options, **more}


@pytest.mark.parametrize("task", NAMES)
def test_a_task_learns_and_its_adapter_gives_the_metrics_of_the_run(all_cases, tmp_path, task):
    folder, known = all_cases
    case = known[task]
    run = train(case.base, small("full"), out=tmp_path, **options(folder, task, case, lr=5e-3))
    assert run.metrics[case.metric] >= case.least
    again = load(tmp_path / "adapter")
    table = read(folder / f"{task}.jsonl", columns=again.task.task.columns)
    assert again.evaluate(table, batch_size=16).metrics == pytest.approx(run.metrics)
    if case.inputs:
        answers = again(rows_of(case.inputs, again.task.task.columns), 2)
        assert len(answers) == len(case.inputs)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert all(isinstance(line["input"], str) for line in lines)


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "houlsby", "bitfit"])
@pytest.mark.parametrize("task", NAMES)
def test_a_method_lowers_the_loss_of_a_task(all_cases, tmp_path, task, method):
    folder, known = all_cases
    more = {"max_steps": 10, "warmup": 0.0, "lr": 5e-3}
    run = train(known[task].base, small(method), out=tmp_path, **options(folder, task, known[task], **more))
    losses = [point["loss"] for point in run.progress.curve]
    assert min(losses[5:]) < losses[0]


@pytest.mark.parametrize("task", NAMES)
def test_a_batch_cut_anyhow_has_one_gradient(all_cases, tmp_path, task):
    """The law of every task, in float64: the loss and its gradient do not know micro-batches."""
    folder, known = all_cases
    case = known[task]
    recipe = given(case.base, None, options(folder, task, case))
    method = small("lora", targets="all")
    experiment = prepare(recipe, task_of(recipe, method), read_tables(recipe))
    found = []
    for tokens in (None, 30, 1):
        model = AdaptedModel(experiment.base.double(), experiment.task.processor)
        heads = experiment.task.task.head(model.config).modules(model.base)
        model.add("a", method, heads=heads, seed=0)
        model.double().train()
        disturb(model, "a", size=0.05)
        features = encode(experiment, encoder_of(experiment, recipe, method, model), recipe)[0].features
        budget = replace(budget_of(recipe, method, len(features), model), micro_tokens=tokens)
        step = Step(model, "a", experiment.task, budget)
        loss, _ = step.backward(features)
        found.append([torch.tensor(loss).double(), *(p.grad for p in model.parameters_of("a"))])
        model.close()
    for cut in found[1:]:
        for whole, mine in zip(found[0], cut, strict=True):
            assert (whole is None) == (mine is None)
            if whole is not None:
                torch.testing.assert_close(mine, whole, atol=1e-6, rtol=1e-4)


def test_questions_without_an_answer_are_learned_and_their_threshold_kept(all_cases, tmp_path):
    folder, known = all_cases
    case = known["extract"]
    rows = [
        {"question": "where", "context": f"{i:02} at the {place}", "answers": {"text": [place], "answer_start": [10]}}
        for i, place in enumerate(PLACES * 6)
    ]
    none = [
        {"question": "why", "context": f"{i:02} at the bay", "answers": {"text": [], "answer_start": []}}
        for i in range(12)
    ]
    said: list[str] = []
    run_options = options(folder, "extract", replace(case, rows=rows + none), lr=5e-3, max_steps=120)
    run = train(case.base, small("full"), out=tmp_path, say=said.append, **run_options)
    assert any("3 training rows are held out to choose when to answer nothing" in text for text in said)
    assert run.metrics["unanswerable"] >= 90
    assert run.metrics["answerable_em"] >= 90
    again = load(tmp_path)
    assert isinstance(again.task.task.null_threshold, float)
    assert again.evaluate(run_options["eval"]).metrics == pytest.approx(run.metrics)
    question = {"question": "why", "context": "05 at the bay"}
    assert again([question]) == [""]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "tag": ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words and 1 tags"),
    "extract": ({"question": "a", "context": "b", "answers": "c"}, "'context' does not hold the answer 'c'"),
    "regress": ({"text": "a", "score": "much"}, "'score' is 'much', not a number"),
    "image-classify": ({"image": "bad.png", "label": "dark"}, "'image' is no readable image"),
    "detect": (
        {"image": "o0.png", "objects": [{"label": "cell", "box": [0, 0, 33, 4]}]},
        "box (0, 0, 33, 4) of 'cell' is not inside the image of 32 x 32",
    ),
    "instruct": ({"instruction": "a", "output": " "}, "'output' is empty"),
}


@pytest.mark.parametrize("task", BAD)
def test_bad_lines_are_counted_named_and_refused_above_a_share(all_cases, tmp_path, task):
    folder, known = all_cases
    (folder / "bad.png").write_bytes(b"no image")
    row, problem = BAD[task]
    good = known[task].rows
    file = write(folder / f"{task}-bad.jsonl", [*good, row])
    recipe = options(folder, task, known[task], max_steps=1) | {"train": file}
    with pytest.raises(GraftuneError) as caught:
        train(known[task].base, small("lora"), out=tmp_path / "a", **recipe)
    assert f"line {len(good) + 1}: {problem}" in str(caught.value)
    assert "1 bad line" in str(caught.value)
    assert not (tmp_path / "a").exists()
    said: list[str] = []
    train(known[task].base, small("lora"), out=tmp_path / "b", say=said.append, **recipe, bad_rows=0.3)
    assert any("1 bad line left out" in text and problem in text for text in said)
    assert json.loads((tmp_path / "b" / "run.json").read_text())["data"]["train"]["left_out"] == 1


def test_labels_of_several_tokens_are_refused_where_one_is_needed(all_cases, tmp_path):
    folder, known = all_cases
    recipe = options(folder, "cloze", known["cloze"], max_steps=1)
    recipe["cloze"] = {"pattern": "{input} is {mask}.", "verbalizer": {"good": "g", "bad": "bad"}}
    with pytest.raises(GraftuneError) as caught:
        train(known["cloze"].base, small("lora"), out=tmp_path, **recipe)
    assert "4 bad lines" in str(caught.value)
    assert "line 2: label 'bad': its word 'bad' is not one token ('Ġb' 'a' 'd')" in str(caught.value)


def test_questions_that_are_the_same_are_answered_from_their_own_texts(all_cases, tmp_path):
    folder, known = all_cases
    train(known["extract"].base, small("full"), out=tmp_path, **options(folder, "extract", known["extract"], lr=5e-3))
    again = load(tmp_path / "adapter")
    asked = read_inputs(folder / "extract.jsonl", columns=again.task.task.columns)
    assert again(asked, 2) == list(PLACES)


def test_a_misspelt_column_of_a_template_is_named_before_anything_runs(all_cases, tmp_path):
    folder, known = all_cases
    recipe = options(folder, "cloze", known["cloze"]) | {"cloze": {"pattern": "{txt} is {mask}."}}
    with pytest.raises(GraftuneError, match=r"unknown template column 'txt'[\s\S]*did you mean 'text'"):
        train(known["cloze"].base, small("lora"), out=tmp_path / "out", **recipe)
    assert not (tmp_path / "out").exists()


def detr(folder: Path) -> str:
    backbone = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = t.DetrConfig(
        use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, backbone_config=backbone,
        d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=4, num_labels=1, **layers,
    )  # fmt: skip
    processor = t.DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return save(folder / "detr", t.DetrForObjectDetection(config), processor)


@pytest.mark.parametrize("method", ["lora", "prefix", "full"])
def test_detr_learns_from_images_of_several_shapes(tmp_path, method):
    rows = objects(tmp_path)
    Image.new("RGB", (48, 32), (40, 0, 0)).save(tmp_path / "wide.png")
    rows.append({"image": "wide.png", "objects": [{"label": "cell", "box": [0, 0, 20, 20]}]})
    file = write(tmp_path / "d.jsonl", rows)
    options = {
        "batch_size": 4,
        "max_steps": 12,
        "lr": 5e-3,
        "head_lr": 5e-3,
        "warmup": 0.0,
        "train": file,
        "eval": file,
    }
    run = train(detr(tmp_path), small(method), out=tmp_path / "run", task="detect", **options)
    losses = [point["loss"] for point in run.progress.curve]
    assert min(losses[6:]) < losses[0]
    again = load(tmp_path / "run" / "adapter")
    table = read(file, columns=again.task.task.columns)
    assert again.evaluate(table, batch_size=8).metrics == pytest.approx(run.metrics)
    alone = again.evaluate(table, batch_size=1)
    assert alone.metrics["map"] == pytest.approx(run.metrics["map"], abs=1e-6)


def test_a_head_for_other_labels_starts_anew(all_cases):
    case = all_cases[1]["image-classify"]
    saved = t.ViTForImageClassification.from_pretrained(case.base).classifier.weight
    for labels, kept in ((("LABEL_0", "LABEL_1"), True), (("dark", "light"), False), (("a", "b", "c"), False)):
        head = registry.make("image-classify", labels=labels).head(None)
        found = load_base(case.base, head, None).classifier.weight
        assert (found.shape == saved.shape and torch.equal(found, saved)) == kept


def test_images_in_half_precision(all_cases, tmp_path):
    folder, known = all_cases
    case = known["image-classify"]
    train(case.base, small("lora"), out=tmp_path / "a", **options(folder, "image-classify", case, precision="bf16"))
    recipe = options(folder, "detect", known["detect"], precision="bf16")
    with pytest.raises(GraftuneError, match="needs a base in float32"):
        train(known["detect"].base, small("lora"), out=tmp_path / "b", **recipe)


def test_every_task_is_tried_here():
    assert set(NAMES) | {"generate", "classify"} == set(registry.TASKS)
