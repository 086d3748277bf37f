"""A run's folder, its repeatability, heads, and its adapter used again."""

from __future__ import annotations

import json

import pytest
import torch

from graftune.checkpoint.native import card
from graftune.config import recipe as recipes
from graftune.datasets import samples
from graftune.datasets.rows import read, rows_of
from graftune.errors import GraftuneError
from graftune.inference.predictor import load
from graftune.methods.method import make
from training.tiny import log, same, small, tensors


def test_the_folder_says_what_was_done(toys, tmp_path):
    run = toys.train(tmp_path, "prefix", checkpoint_every=3, drawn=True)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {
        *("adapter", "curve.svg", "data.json", "log.jsonl"),  # and no checkpoint any more
        *("predictions.jsonl", "recipe.yaml", "run.json"),
    }
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["metrics"] == run.metrics
    assert record["steps"] == 6
    assert record["parameters"] == {"trained": run.count.trained, "stored": run.count.stored}
    assert record["data"]["train"]["rows"] == 12
    assert {"torch", "transformers", "graftune", "python"} <= record["versions"].keys()
    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [p["input"] for p in predictions] == ["n0", "n1", "n2"]
    assert (tmp_path / "curve.svg").read_text().lstrip().startswith("<?xml")
    stored = sum(tensor.numel() for name, tensor in tensors(tmp_path).items() if name.startswith("adapter:"))
    assert stored == run.count.stored


def test_the_same_seed_twice_gives_the_same_files(toys, tmp_path):
    for name in ("a", "b"):
        toys.train(tmp_path / name, "p-tuning", drawn=True)
    for file in ("recipe.yaml", "log.jsonl", "predictions.jsonl", "curve.svg", "adapter/adapter.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_another_seed_gives_another_adapter(toys, tmp_path):
    for seed in (0, 1):
        toys.train(tmp_path / str(seed), seed=seed)
    assert not same(tensors(tmp_path / "0"), tensors(tmp_path / "1"))


def test_untrained_methods_are_evaluated_only(toys, tmp_path):
    run = toys.train(tmp_path, "few-shot")
    assert run.progress.step == 0
    assert run.count.trained == run.count.stored == 0
    assert card(tmp_path / "adapter")["use"]["template"].count("\n\n") == 3  # the solved examples


@pytest.mark.parametrize(
    ("base", "method"),
    [
        ("bert", "lora"),
        ("bert", "prefix"),
        ("bert", "full"),
        ("llama", "lora"),
        ("gpt2", "houlsby"),
        ("gpt2", "freeze"),
    ],
)
def test_heads_learn_to_classify(toys, tmp_path, base, method):
    run = toys.train(tmp_path, method, base=base, task="classify", max_steps=40, batch_size=8, lr=2e-2)
    assert run.metrics["accuracy"] == 1.0


@pytest.mark.parametrize("method", ["lora", "full", "houlsby"])
def test_label_words_learn_to_classify(toys, tmp_path, method):
    cloze = {"verbalizer": {"yes": "good", "no": "bad"}, "words": "first"}
    options = {"task": "cloze", "max_steps": 60, "batch_size": 8, "lr": 2e-2, "cloze": cloze}
    assert toys.train(tmp_path, method, **options).metrics["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prefix", {}),
        ("p-tuning", {"max_length": 30}),
        ("few-shot", {}),
        ("freeze", {"precision": "bf16"}),
        ("lora", {"task": "classify", "base": "bert"}),
        ("prompt", {"task": "cloze", "cloze": {"words": "first"}}),
        ("hard-prompt", {"task": "classify"}),
    ],
)
def test_a_saved_adapter_gives_the_metrics_of_its_run(toys, tmp_path, method, options):
    run = toys.train(tmp_path, method, **options)
    again = load(tmp_path / "adapter")
    table = read(toys.data[options.get("task", "generate")][1])
    assert again.evaluate(table, batch_size=8).metrics == run.metrics


def test_what_is_given_goes_before_the_card(toys, tmp_path):
    toys.train(tmp_path)
    again = load(tmp_path / "adapter", precision="bf16", options={"generate": {"max_new_tokens": 1}})
    assert again.task.task.max_new_tokens == 1
    assert again.model.base.dtype == torch.bfloat16


def test_an_answer_for_every_text_in_order(toys, tmp_path):
    toys.train(tmp_path, "lora", task="classify", base="bert")
    answers = load(tmp_path / "adapter")(rows_of(["good", "bad", "good"]), 2)
    assert len(answers) == 3
    assert answers[0] == answers[2]
    assert set(answers) <= {"yes", "no"}


def test_an_adapter_refuses_another_base(toys, tmp_path):
    toys.train(tmp_path)
    with pytest.raises(GraftuneError, match="belongs to another base"):
        load(tmp_path / "adapter", base=toys.gpt2)


def test_without_data_the_embedded_set_is_used(toys, tmp_path, monkeypatch):
    said: list[str] = []
    options = {"train": None, "eval": None, "eval_rows": 1, "train_rows": 4, "max_steps": 1}
    with pytest.raises(GraftuneError, match="too long"):  # its tables do not fit the tiny base
        toys.train(tmp_path / "run", small("lora"), **options, say=said.append)
    assert any("embedded" in text for text in said)
    assert samples.path("train").is_file()
    assert not (tmp_path / "run").exists()


def test_a_dumped_recipe_gives_the_same_run(toys, tmp_path):
    toys.train(tmp_path / "a", small("prefix", length=2))
    recipe = recipes.load(str(tmp_path / "a" / "recipe.yaml"), {})
    toys.train(tmp_path / "b", make("prefix", **recipe.section("prefix")), recipe=recipe)
    assert (tmp_path / "a" / "recipe.yaml").read_text() == (tmp_path / "b" / "recipe.yaml").read_text()
    assert log(tmp_path / "a") == log(tmp_path / "b")
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
