"""HF PEFT and its Trainer on a whole task: RECIPE, the keys of a Graftune recipe as JSON, with a section for LoRA.

Data, rows, ids, the start of a new head and the metric are those of Graftune, so that only the training differs. The
saved folder is read back into Graftune and evaluated there, always on an fp32 base.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model

import graftune as gt
from graftune.config.recipe import Recipe
from graftune.datasets.rows import Row
from graftune.inference import evaluation
from graftune.model.positions import read_positions
from graftune.tasks.bound import Evaluation
from graftune.tasks.features import Features, PromptEncoder
from graftune.templates.template import Template
from graftune.training.prepare import Experiment, prepare
from graftune.training.tables import read_tables
from sides import trainer
from sides.figures import Clock, report
from sides.recipes import method_of, parsed, task_of
from sides.shapes import without_dropout

PLAIN = Template("{input}")


def load(recipe: Recipe) -> Experiment:
    """Rows, task, tokenizer and an fp32 base, each time the same."""
    return prepare(recipe.model_copy(update={"precision": "fp32"}), task_of(recipe), read_tables(recipe))


def encode(experiment: Experiment, rows: Sequence[Row], recipe: Recipe) -> list[Features]:
    """Rows as Graftune encodes them; no id is a virtual one."""
    limit = recipe.max_length or read_positions(experiment.base).text
    encoder = PromptEncoder(experiment.task.processor, PLAIN, sys.maxsize, limit)
    return [features for row in rows for features in experiment.task.encode(row, encoder)]


def adapted(experiment: Experiment, recipe: Recipe) -> Any:
    """The base with the recipe's LoRA and, for classes, a trained head."""
    method, heads = method_of(recipe), list(experiment.task.task.head(experiment.base.config).modules(experiment.base))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if heads else TaskType.CAUSAL_LM,
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=list(method.targets),
        modules_to_save=heads or None,
    )
    torch.manual_seed(recipe.seed)  # the Trainer's own seed comes too late for the start of A
    return get_peft_model(without_dropout(experiment.base), config)


def train(experiment: Experiment, recipe: Recipe, clock: Clock, folder: str) -> list[float]:
    """Train by the recipe, in bf16 by autocast, and save; the loss of each step."""
    model = adapted(experiment, recipe)
    losses = trainer.fit(
        model,
        encode(experiment, experiment.tables.train.rows, recipe),
        clock,
        steps=recipe.max_steps,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        pad=experiment.task.pad_id,
        autocast=recipe.precision == "bf16",
        warmup=recipe.warmup,
        seed=recipe.seed,
    )
    model.save_pretrained(folder)
    return losses


def evaluate(recipe: Recipe, folder: str) -> Evaluation:
    """The saved adapter on the evaluation rows, as Graftune evaluates its own."""
    experiment = load(recipe)
    model = gt.AdaptedModel(experiment.base, experiment.task.processor)
    model.load("a", folder)
    rows, size = experiment.tables.eval.rows, 2 * recipe.batch_size
    return evaluation.evaluate(model, experiment.task, rows, "a", PLAIN, batch_size=size, max_length=recipe.max_length)


def main(text: str) -> None:
    """Train and evaluate."""
    recipe, clock = parsed(text), Clock()
    with tempfile.TemporaryDirectory() as folder:
        losses = train(load(recipe), recipe, clock, folder)
        evaluation = evaluate(recipe, folder)
    report(seconds=clock.seconds, losses=losses, metrics=evaluation.metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])
