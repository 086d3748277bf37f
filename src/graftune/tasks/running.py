"""Running: an adapted model on batches of a task, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graftune.model.anatomy import reader_of
from graftune.tasks.batches import by_length
from graftune.tasks.features import Features

if TYPE_CHECKING:
    from graftune.model.adapted import AdaptedModel
    from graftune.tasks.task import Task

Progress = Callable[[int], None]


def batches(
    task: Task, model: AdaptedModel, features: Sequence[Features], padding: int, size: int
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Collated batches of features of like length, on the base's device, each with the indices of its features."""
    for indices in by_length([item.length for item in features], size):
        yield indices, to_device(task.collate([features[i] for i in indices], padding), model)


def answered(
    task: Task,
    model: AdaptedModel,
    adapter: str | None,
    features: Sequence[Features],
    padding: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Any]:
    """What the task reads off the outputs for each of the features, in their order; one forward pass a batch."""
    found: list[Any] = [None] * len(features)
    with evaluating(model):
        for indices, batch in batches(task, model, features, padding, batch_size):
            outputs = task.outputs(model, batch, adapter)
            for i, value in zip(indices, task.read(outputs, batch), strict=True):
                found[i] = value
            if progress is not None:
                progress(len(indices))
    return found


def first_virtual_id(model: AdaptedModel) -> int:
    """The id of the first virtual token: the number of rows of the base's embedding; 0 where inputs are no tokens."""
    table = reader_of(model.base)
    return table.num_embeddings if isinstance(table, nn.Embedding) else 0


def pad_id(tokenizer: Any) -> int:
    """The id to pad with: the tokenizer's own, else its end of text, which the attention mask hides."""
    for name in ("pad_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    return 0


def to_device(batch: dict[str, Any], model: AdaptedModel) -> dict[str, Any]:
    """The batch on the base's device: its tensors, and those in lists and dictionaries."""
    device = next(model.base.parameters()).device

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if isinstance(value, dict):
            return {name: moved(one) for name, one in value.items()}
        return value.to(device) if isinstance(value, Tensor) else value

    found = {name: moved(value) for name, value in batch.items()}
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
