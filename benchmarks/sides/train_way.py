"""HF PEFT's own way with a method: its config as it comes, its Trainer, one rate, one seed. METHOD RECIPE (as JSON).

Data, rows, ids and the metric are those of Graftune. The saved folder is read back into Graftune and evaluated there;
`full` trains the base itself, as the Trainer alone does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)

import graftune as gt
from graftune.config.recipe import Recipe
from graftune.inference import evaluation
from graftune.tasks.bound import Evaluation
from graftune.templates.template import Template, composed
from graftune.training.prepare import Experiment
from sides import trainer
from sides.figures import Clock, report
from sides.recipes import parsed
from sides.train_peft import PLAIN, encode, load

TOKENS = 20  # virtual ones, where PEFT has no default
TYPES = {"classify": TaskType.SEQ_CLS, "tag": TaskType.TOKEN_CLS, "generate": TaskType.CAUSAL_LM}
#: Our names, and what PEFT has for each: its prefix-tuning trains the rows themselves, as P-tuning v2 does.
CONFIGS: dict[str, Callable[[TaskType], Any]] = {
    "lora": lambda kind: LoraConfig(task_type=kind),
    "dora": lambda kind: LoraConfig(task_type=kind, use_dora=True),
    "ia3": lambda kind: IA3Config(task_type=kind),
    "p-tuning-v2": lambda kind: PrefixTuningConfig(task_type=kind, num_virtual_tokens=TOKENS),
    "prefix": lambda kind: PrefixTuningConfig(
        task_type=kind, num_virtual_tokens=TOKENS, prefix_projection=True, encoder_hidden_size=512
    ),
    "prompt": lambda kind: PromptTuningConfig(task_type=kind, num_virtual_tokens=TOKENS),
    "p-tuning": lambda kind: PromptEncoderConfig(task_type=kind, num_virtual_tokens=TOKENS),
}
METHODS = ("full", *CONFIGS)


def train(experiment: Experiment, recipe: Recipe, method: str, folder: str) -> list[float]:
    """Train, and save what was trained, if it is not the base; the loss of each step."""
    torch.manual_seed(recipe.seed)
    model: Any = experiment.base
    if method in CONFIGS:
        model = get_peft_model(model, CONFIGS[method](TYPES[recipe.task]))
    losses = trainer.fit(
        model,
        encode(experiment, experiment.tables.train.rows, recipe),
        Clock(),
        steps=recipe.max_steps,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        pad=experiment.task.pad_id,
        warmup=recipe.warmup,
        seed=recipe.seed,
    )
    if method in CONFIGS:
        model.save_pretrained(folder)
    return losses


def evaluate(experiment: Experiment, recipe: Recipe, method: str, folder: str) -> Evaluation:
    """What was trained, on the evaluation rows, as Graftune evaluates its own."""
    name, template = None, PLAIN
    base = experiment.base if method == "full" else load(recipe).base
    model = gt.AdaptedModel(base.eval(), experiment.task.processor)
    if method in CONFIGS:
        name = "a"
        template = Template(composed(model.load(name, folder).method.template, PLAIN.text))
    rows, size = experiment.tables.eval.rows, 2 * recipe.batch_size
    return evaluation.evaluate(
        model, experiment.task, rows, name, template, batch_size=size, max_length=recipe.max_length
    )


def main(method: str, text: str) -> None:
    """Train and evaluate."""
    recipe = parsed(text)
    experiment = load(recipe)
    with tempfile.TemporaryDirectory() as folder:
        losses = train(experiment, recipe, method, folder)
        found = evaluate(experiment, recipe, method, folder)
    report(losses=losses, metrics=found.metrics)


if __name__ == "__main__":
    main(*sys.argv[1:])
