"""Running a model on batches of a task, without gradients and without dropout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.model.anatomy import reader_of
from graftune.tasks.batches import by_length
from graftune.tasks.bound import Batch, BoundTask
from graftune.tasks.features import Features, PromptEncoder
from graftune.templates.template import Template

Progress = Callable[[int], None]

UNLIMITED = 10**9  # a tokenizer without a limit says a larger number


def batches(
    task: BoundTask, model: AdaptedModel, features: Sequence[Features], size: int
) -> Iterator[tuple[list[int], Batch]]:
    """Collated batches of features of like length, on the base's device, each with the indices of its features."""
    for indices in by_length([item.length for item in features], size):
        yield indices, to_device(task.collate([features[i] for i in indices]), model)


def first_virtual_id(model: AdaptedModel) -> int:
    """The id of the first virtual token: the number of rows of the base's embedding; 0 where inputs are no tokens."""
    table = reader_of(model.base)
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0


def encoder_for(
    model: AdaptedModel, processor: Any, template: Template, adapter: str | None, max_length: int | None
) -> PromptEncoder:
    """How rows are read for an adapter: within the maximum length, the base's positions and the tokenizer's own limit.

    The adapter's virtual tokens and its shift of positions are taken off, but for those that the template places.
    Raises GraftuneError for a template that places other virtual tokens than the adapter has.
    """
    own = 0 if adapter is None else model.adapter(adapter).virtual_tokens
    if template.virtual_tokens not in (0, own):
        raise GraftuneError(
            "the template has virtual tokens that the method does not train",
            received=f"{template.virtual_tokens} of them in {template.text!r}, {own} of the method's",
            expected="as many {P:n} as the method has virtual tokens, or none",
            do="take {P:n} out of the pattern, or use a method whose pattern it is: p-tuning with pattern='…'",
        )
    room = model.room(adapter)
    limits = [
        max_length,
        None if room is None else room + template.virtual_tokens,
        getattr(processor, "model_max_length", None),
    ]
    known = [limit for limit in limits if limit is not None and limit < UNLIMITED]
    if known and min(known) - template.virtual_tokens < 1:
        raise GraftuneError(
            "the method's virtual tokens leave no room for a text",
            received=f"{own} virtual tokens and at most {min(known)} tokens in a row",
            expected="room for at least one token of the input",
            do="take fewer virtual tokens, or raise max_length where the base has more positions",
        )
    targets = [limit for limit in (max_length, model.target_positions) if limit is not None]
    longest, target = min(known, default=None), min(targets, default=None)
    return PromptEncoder(processor, template, first_virtual_id(model), longest, target)


def to_device(batch: Batch, model: AdaptedModel) -> Batch:
    """The batch on the base's device: its tensors, and those in lists and dictionaries."""
    device = next(model.base.parameters()).device

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if isinstance(value, dict):
            return {name: moved(one) for name, one in value.items()}
        return value.to(device) if isinstance(value, Tensor) else value

    # Some tokenizers tell the types of tokens to bases that do not take any.
    taken = [
        name for name in batch if name != "token_type_ids" or name in inspect.signature(model.base.forward).parameters
    ]
    found = {name: moved(batch[name]) for name in taken}
    if "pixel_values" in found:  # a table of embeddings gives its own precision; pixels come in float32
        found["pixel_values"] = found["pixel_values"].to(model.base.dtype)
    return found


@contextmanager
def evaluating(model: AdaptedModel) -> Iterator[None]:
    """No gradients and no dropout inside; every module's own mode is restored after."""
    roots = [root for root in (model, model.base) if isinstance(root, nn.Module)]
    modes = {module: module.training for root in roots for module in root.modules()}
    for module in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
