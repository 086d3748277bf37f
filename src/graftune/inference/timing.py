"""What inference is timed on: one call that answers some rows, with an adapter or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from graftune.datasets.rows import Row
from graftune.inference.generation import prompt_limit
from graftune.inference.running import encoder_for, to_device
from graftune.model.adapted import AdaptedModel
from graftune.tasks.batches import inputs
from graftune.tasks.bound import BoundTask
from graftune.tasks.features import Features
from graftune.tasks.writing import BoundWriting
from graftune.templates.template import Template

TIMED_TOKENS = 8  # written for each row by a task that writes


def timing_call(
    model: AdaptedModel, task: BoundTask, rows: Sequence[Row], template: Template, adapter: str | None
) -> Callable[[str | None], object]:
    """One forward pass over the rows; of a task that writes, the same number of tokens on every side."""
    encoder = encoder_for(model, task.processor, template, adapter, None)
    if isinstance(task, BoundWriting):
        encoder = replace(encoder, max_length=prompt_limit(task, encoder.max_length, TIMED_TOKENS))
        prompts = [Features(task.prompt(row, encoder).ids, None) for row in rows]
        padded = to_device(inputs(prompts, task.pad_id, side="left"), model)
        fixed = {"max_new_tokens": TIMED_TOKENS, "min_new_tokens": TIMED_TOKENS, "do_sample": False}
        return lambda adapter: model.generate(**padded, adapters=adapter, **fixed, pad_token_id=task.pad_id)
    features = [task.encode(row, encoder)[0] for row in rows]
    batch = to_device(task.collate(features), model)

    def once(adapter: str | None) -> object:
        with torch.no_grad():
            return task.outputs(model, batch, adapter)

    return once
