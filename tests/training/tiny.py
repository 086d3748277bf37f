"""Tiny random bases as Transformers folders, toy data that they can learn, and runs over both."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from graftune.methods.method import Method, make
from graftune.training.run import Run, train
from tasks.conftest import byte_level

POSITIONS = 96
#: Options that keep a method small, and a rate at which it moves within a few steps.
SMALL: dict[str, dict[str, Any]] = {
    "prompt": {"length": 4},
    "prefix": {"length": 3, "hidden": 16},
    "p-tuning": {"pattern": "{P:2}{input}{P:2}"},
    "p-tuning-v2": {"length": 4},
    "houlsby": {"bottleneck": 4},
    "pfeiffer": {"bottleneck": 4},
    "parallel": {"bottleneck": 4},
    "lora": {"rank": 2},
    "dora": {"rank": 2},
    "freeze": {"last": 1},
}


def small(name: str, **options: Any) -> Method:
    """A method of small size."""
    return make(name, **{**SMALL.get(name, {}), **options})


def _model(family: str, words: int, positions: int) -> PreTrainedModel:
    common = {"vocab_size": words, "pad_token_id": 0}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": positions}
        return GPT2LMHeadModel(GPT2Config(**sizes, **common, **ends))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "bert":
        return BertForMaskedLM(BertConfig(**sizes, **common, max_position_embeddings=positions))
    return LlamaForCausalLM(
        LlamaConfig(**sizes, **common, **ends, num_key_value_heads=1, max_position_embeddings=positions)
    )


def save_base(folder: Path, family: str, positions: int = POSITIONS) -> str:
    """Write a base whose weights are large enough that every part matters; its folder."""
    masked = {"wrap": ("[CLS]", "[SEP]"), "mask_token": "[MASK]"}
    tokenizer = byte_level(**masked) if family == "bert" else byte_level()  # type: ignore[arg-type]
    return saved(folder, _model(family, len(tokenizer), positions), tokenizer)


def saved(folder: Path, model: PreTrainedModel, processor: Any) -> str:
    """Write a model, with weights large enough that every part matters, and its tokenizer; their folder."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def write(path: Path, rows: Iterable[dict[str, str] | str]) -> str:
    """A .jsonl file; rows that are text are written as they stand."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def generation_rows(count: int) -> list[dict[str, str]]:
    return [{"table": f"n{i % 3}", "text": ("zero", "one", "two")[i % 3]} for i in range(count)]


def contradictions(folder: Path) -> str:
    """Rows of the same form as those trained on, with other answers: training helps at first, then hurts."""
    return write(folder / "other.jsonl", [{"table": f"n{i}", "text": ("two", "zero", "one")[i]} for i in range(3)])


def classification_rows(count: int) -> list[dict[str, str]]:
    return [{"sentence": f"{'good' if i % 2 else 'bad'} {i}", "label": "yes" if i % 2 else "no"} for i in range(count)]


class Toys:
    """Folders of bases and data files, and the usual short run over them."""

    def __init__(self, folder: Path) -> None:
        self.llama, self.gpt2, self.bert = (save_base(folder / name, name) for name in ("llama", "gpt2", "bert"))
        self.long = save_base(folder / "long", "llama", 1024)  # the embedded data is in long lines
        self.data = {
            "generate": (
                write(folder / "train.jsonl", generation_rows(12)),
                write(folder / "dev.jsonl", generation_rows(4)),
            ),
            "classify": (
                write(folder / "ctrain.jsonl", classification_rows(24)),
                write(folder / "cdev.jsonl", classification_rows(10)),
            ),
        }
        self.data["cloze"] = self.data["classify"]

    def options(self, task: str = "generate", **options: Any) -> dict[str, Any]:
        """The recipe of a short run."""
        train_data, eval_data = self.data[task]
        short = {"generate": {"max_new_tokens": 4}} if task == "generate" else {}
        usual = {"max_steps": 6, "batch_size": 4, "precision": "fp32"}
        if "epochs" in options:
            del usual["max_steps"]
        return {"task": task, "train": train_data, "eval": eval_data, **usual, **short, **options}

    def train(self, out: Path, method: str | Method = "lora", *, base: str = "llama", **options: Any) -> Run:
        """A short run; its curve is drawn only where a test looks at it."""
        keys = ("resume", "watch", "say", "recipe")
        own = {key: options.pop(key) for key in keys if key in options}
        built = method if isinstance(method, Method) else small(method)
        task = options.pop("task", "generate")
        drawn = nullcontext() if options.pop("drawn", False) else patch("graftune.training.plot.curve_svg", str)
        with drawn:
            rest = options if "recipe" in own else self.options(task, **options)  # a recipe says it all
            return train(getattr(self, base), built, out=out, **own, **rest)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """All trained tensors of a run: the adapter's, and its generator's."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted((run / "adapter").glob("*.safetensors")):
        found |= {f"{file.stem}:{name}": tensor for name, tensor in load_file(file).items()}
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether both hold the same tensors, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
