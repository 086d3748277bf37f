"""Real data and a real pretrained base, where GRAFTUNE_DATA names the folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import graftune as gt
from graftune.config.recipe import load
from graftune.datasets.rows import grouped, read
from graftune.methods.method import make
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from graftune.training.tables import read_tables

DATA = Path(os.environ.get("GRAFTUNE_DATA", "/nonexistent"))
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.is_dir(), reason="GRAFTUNE_DATA is not set")]
DATA_FLAGS = {"train": str(DATA / "pros_cons/train.jsonl"), "eval": str(DATA / "pros_cons/dev.jsonl")}
STORIES = DATA / "stories260k"


def test_e2e_references_are_grouped_by_table() -> None:
    rows = read(DATA / "e2e/dev.jsonl").rows
    groups = grouped(rows)
    assert (len(rows), len(groups)) == (4672, 547)
    assert sum(len(g.references) for g in groups) == len(rows)


@pytest.mark.parametrize("name", ["lora", "prefix", "houlsby", "freeze", "full"])
def test_a_real_base_learns_table_to_text(name: str, tmp_path: Path) -> None:
    run = gt.train(
        str(STORIES),
        make(name),
        out=tmp_path / "run",
        train=str(DATA / "e2e/train.jsonl"),
        eval=str(DATA / "e2e/dev.jsonl"),
        train_rows=400,
        eval_rows=8,
        max_steps=30,
        batch_size=8,
        eval_every=15,
        generate={"max_new_tokens": 8},
    )
    losses = [point["loss"] for point in run.progress.curve]
    assert sum(losses[-5:]) / 5 < 0.93 * losses[0]


def test_a_real_base_learns_sentiment(tmp_path: Path) -> None:
    run = gt.train(
        str(STORIES),
        gt.Freeze(last=2),
        task="classify",
        out=tmp_path / "run",
        train=str(DATA / "pros_cons/train.jsonl"),
        eval=str(DATA / "pros_cons/dev.jsonl"),
        train_rows=3000,
        max_steps=120,
        batch_size=32,
    )
    assert run.metrics["accuracy"] > 0.7


@pytest.mark.slow
def test_the_shipped_encoder_learns_sentiment_with_lora(tmp_path: Path) -> None:
    run = gt.train(
        "tiny-encoder",
        gt.LoRA(),
        recipe=load(str(Path(__file__).parents[2] / "benchmarks/tiny_encoder_pros_cons.yaml"), DATA_FLAGS),
        out=tmp_path / "run",
    )
    assert run.metrics["accuracy"] >= 0.85


def test_mixed_batches_on_a_real_base_generate_what_each_row_generates_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    model = AdaptedModel(AutoModelForCausalLM.from_pretrained(STORIES), tokenizer)
    names = [None, "lora", "prefix", "prompt", "houlsby", "ia3"]
    for name in names[1:]:
        model.add(name, make(name), seed=1)
        with torch.no_grad():
            for parameter in model.parameters_of(name):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    texts = ["Once upon a time", "The cat", "One day, a little girl named Lily", "Tom", "A big dog ran", "She was"]
    ids = [tokenizer(t).input_ids for t in texts]
    width = max(map(len, ids))
    batch = torch.tensor([[0] * (width - len(i)) + i for i in ids])
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    together = model.generate(input_ids=batch, attention_mask=mask, adapters=names, **options)
    for row, name in enumerate(names):
        one = torch.tensor([ids[row]])
        alone = model.generate(input_ids=one, attention_mask=torch.ones_like(one), adapters=name, **options)
        assert together[row, width:].tolist()[: alone.shape[1] - len(ids[row])] == alone[0, len(ids[row]) :].tolist()


@pytest.mark.parametrize(
    ("task", "train", "rows", "bad"),
    [
        ("tag", "ncbi_disease/train.jsonl", 5432, 0),
        ("classify", "banking77/train.jsonl", 9003, 0),
        ("translate", "tatoeba_en_zh/train.jsonl", 24310, 0),
        ("instruct", "gsm8k/train.jsonl", 7473, 0),
        ("detect", "bccd/train", 204, 1),  # a box without an area
    ],
)
def test_every_real_set_is_read_by_its_task(task: str, train: str, rows: int, bad: int) -> None:
    recipe = load(None, {"task": task, "train": str(DATA / train), "eval": str(DATA / train)})
    tables = read_tables(recipe)
    assert (len(tables.train.rows), len(tables.train.left_out)) == (rows, bad)


def test_a_real_translation_is_scored_by_characters_of_chinese() -> None:
    task = registry.make("translate")
    assert task.fit(read(DATA / "tatoeba_en_zh/dev.jsonl", "en", "zh", task.columns).rows).tokenize == "zh"
