"""HF PEFT and its Trainer on a whole task: RECIPE, the keys of a Graftune recipe as JSON, with a section for LoRA.

Data, rows, ids, the start of a new head and the metric are those of Graftune, so that only the training differs. The
saved folder is read back into Graftune and evaluated there, always on an fp32 base.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model

import graftune as gt
from graftune.datasets.rows import Row
from graftune.tasks.features import Features, Reading
from graftune.tasks.running import pad_id
from graftune.tasks.task import Evaluation
from graftune.templates.template import Template
from graftune.training.prepare import Prepared, prepare, read_tables
from graftune.training.recipe import Recipe
from sides import trainer
from sides.figures import Clock, report
from sides.recipes import method_of, parsed, task_of
from sides.shapes import without_dropout

PLAIN = Template("{input}")


def load(recipe: Recipe) -> Prepared:
    """Rows, task, tokenizer and an fp32 base, each time the same."""
    return prepare(recipe.model_copy(update={"precision": "fp32"}), task_of(recipe), read_tables(recipe))


def encode(prepared: Prepared, rows: list[Row], recipe: Recipe) -> list[Features]:
    """Rows as Graftune encodes them; no id is a virtual one."""
    limit = recipe.max_length or prepared.max_length
    return [prepared.task.encode(row, Reading(prepared.tokenizer, PLAIN, sys.maxsize, limit)) for row in rows]


def adapted(prepared: Prepared, recipe: Recipe) -> Any:
    """The base with the recipe's LoRA and, for classes, a trained head."""
    method, heads = method_of(recipe), list(prepared.task.head_names(prepared.base))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if heads else TaskType.CAUSAL_LM,
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=list(method.targets),
        modules_to_save=heads or None,
    )
    torch.manual_seed(recipe.seed)  # the Trainer's own seed comes too late for the start of A
    return get_peft_model(without_dropout(prepared.base), config)


def train(prepared: Prepared, recipe: Recipe, clock: Clock, folder: str) -> list[float]:
    """Train by the recipe, in bf16 by autocast, and save; the loss of each step."""
    model = adapted(prepared, recipe)
    losses = trainer.fit(
        model,
        encode(prepared, prepared.tables.train.rows, recipe),
        clock,
        steps=recipe.max_steps,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        pad=pad_id(prepared.tokenizer),
        autocast=recipe.precision == "bf16",
        warmup=recipe.warmup,
        seed=recipe.seed,
    )
    model.save_pretrained(folder)
    return losses


def evaluate(recipe: Recipe, folder: str) -> Evaluation:
    """The saved adapter on the evaluation rows, as Graftune evaluates its own."""
    prepared = load(recipe)
    model = gt.AdaptedModel(prepared.base, prepared.tokenizer)
    model.load("a", folder)
    return prepared.task.evaluate(
        model,
        prepared.tokenizer,
        prepared.tables.eval.rows,
        "a",
        PLAIN,
        batch_size=2 * recipe.batch_size,
        max_length=recipe.max_length or prepared.max_length,
    )


def main(text: str) -> None:
    """Train and evaluate."""
    recipe, clock = parsed(text), Clock()
    with tempfile.TemporaryDirectory() as folder:
        losses = train(load(recipe), recipe, clock, folder)
        evaluation = evaluate(recipe, folder)
    report(seconds=clock.seconds, losses=losses, metrics=evaluation.metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])
