"""Features of many rows come from the disk as they were made, in any number of processes, once."""

from __future__ import annotations

import pytest
from transformers import BertConfig, GPT2Config

from graftune.datasets.rows import read
from graftune.tasks import registry
from graftune.tasks.features import PromptEncoder
from graftune.tasks.generate import BoundGenerate
from graftune.templates import Template
from graftune.training import encoding
from graftune.training.encoding import encode_table
from tasks.conftest import byte_level
from training.tiny import Toys, generation_rows, same, tensors, write

TOKENIZER = byte_level(("[CLS]", "[SEP]"))
WORDS = ["the", "boat", "left", "at", "noon", "and", "came", "back", "at", "nine"]
ROWS = {
    "generate": [{"input": f"n{i}" * (i % 5 + 1), "target": f"word {i}"} for i in range(23)],
    "classify": [{"text": f"n{i}", "label": "ab"[i % 2]} for i in range(23)],
    "multi-label": [{"text": f"n{i}", "labels": ["a"] * (i % 2) + ["b"]} for i in range(23)],
    "regress": [{"text": f"n{i}", "score": i / 3} for i in range(23)],
    "tag": [{"tokens": WORDS[: i % 9 + 1], "tags": ["O", "B-X", *["O"] * 7][: i % 9 + 1]} for i in range(23)],
    "extract": [{"question": "when", "context": " ".join(WORDS), "answers": WORDS[i % 9]} for i in range(23)],
}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("task", ROWS)
def test_stored_features_are_those_in_memory(tmp_path, monkeypatch, task, processes):
    monkeypatch.setattr(encoding.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    fitted = registry.make(task)
    table = read(write(tmp_path / "rows.jsonl", ROWS[task]), columns=fitted.columns)
    fitted = fitted.fit(table.rows)
    config = GPT2Config(pad_token_id=0) if task == "generate" else BertConfig()
    bound = fitted.bind(config, TOKENIZER)
    encoder = PromptEncoder(TOKENIZER, Template(fitted.template), 1000, 96)
    memory = encode_table(table, bound, encoder)
    assert list(memory.features) == [part for row in table.rows for part in bound.encode(row, encoder)]
    monkeypatch.setattr(encoding, "LARGE", 5)
    disk = encode_table(table, bound, encoder, processes)
    assert isinstance(disk.features, encoding.StoredFeatures)
    assert list(disk.features) == list(memory.features)
    assert (disk.truncated, disk.too_long) == (memory.truncated, memory.too_long)
    batches = [bound.collate(features[3:7]) for features in (list(disk.features), list(memory.features))]
    assert all(bool((batches[0][name] == batches[1][name]).all()) for name in batches[1])


def test_a_second_run_finds_them_and_other_data_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(encoding, "LARGE", 5)
    written = []
    write_share = encoding._write_share

    def spy(*share):
        written.append(share)
        write_share(*share)

    monkeypatch.setattr(encoding, "_write_share", spy)
    task = registry.make("generate")
    bound = task.bind(GPT2Config(pad_token_id=0), TOKENIZER)
    encoder = PromptEncoder(TOKENIZER, max_length=200)
    for rows, expected in ((ROWS["generate"], 1), (ROWS["generate"], 1), (ROWS["generate"][:-1], 2)):
        table = read(write(tmp_path / "rows.jsonl", rows))
        assert len(encode_table(table, bound, encoder, 1).features) == len(rows)
        assert len(written) == expected


def test_of_a_large_table_only_the_rows_that_the_steps_take_are_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    toys = Toys(tmp_path)
    train = write(tmp_path / "many.jsonl", generation_rows(50))
    encoded = []
    encode_many = BoundGenerate.encode_many
    monkeypatch.setattr(
        BoundGenerate, "encode_many", lambda *given: encoded.extend(row.line for row in given[1]) or encode_many(*given)
    )

    def lines(out: str, large: int, **options) -> list[int]:
        monkeypatch.setattr(encoding, "LARGE", large)
        encoded.clear()
        toys.train(tmp_path / out, train=train, max_steps=3, batch_size=4, **options)
        return encoded[:-4]  # the last are those to evaluate on

    assert sorted(lines("small", 50)) == list(range(1, 51))
    drawn = lines("large", 20)
    assert len(set(drawn)) == len(drawn) == 12
    assert lines("again", 20) == drawn != lines("other", 20, seed=1)
    assert same(tensors(tmp_path / "large"), tensors(tmp_path / "again"))


def test_rows_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [*ROWS["generate"], {"input": "x", "target": "y" * 300}]
    table = read(write(tmp_path / "rows.jsonl", rows))
    bound = registry.make("generate").bind(GPT2Config(pad_token_id=0), TOKENIZER)
    memory = encode_table(table, bound, PromptEncoder(TOKENIZER, max_length=200))
    monkeypatch.setattr(encoding, "LARGE", 5)
    disk = encode_table(table, bound, PromptEncoder(TOKENIZER, max_length=200), 2)
    assert list(memory.too_long) == list(disk.too_long) == [24]
    assert memory.too_long == disk.too_long
    assert len(disk.features) == 23
