"""The other side's loop: transformers.Trainer with its defaults, on rows padded to the longest of a batch."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

from graftune.tasks.features import Features
from sides.figures import Clock


class Collator:
    """Rows padded on the right to the longest, as DataCollatorWithPadding and DataCollatorForSeq2Seq do."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(values: list[list[int]], fill: int) -> torch.Tensor:
            return torch.tensor([value + [fill] * (width - len(value)) for value in values])

        ids, labels = ([row[key] for row in rows] for key in ("input_ids", "labels"))
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded(labels, -100) if isinstance(labels[0], list) else torch.tensor(labels),
        }


def as_rows(features: list[Features]) -> list[dict[str, Any]]:
    """Features as the Trainer's rows."""
    return [{"input_ids": f.ids, "labels": f.labels} for f in features]


class Ticks(TrainerCallback):
    """Tells the clock about the end of each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.tick()


def fit(
    model: Any,
    features: list[Features],
    clock: Clock,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    pad: int = 0,
    autocast: bool = False,
    warmup: float = 0.06,
    seed: int = 0,
) -> list[float]:
    """Train for ``steps`` steps of AdamW, linear schedule, gradients clipped to 1; the loss of each step."""
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            place,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            learning_rate=lr,
            lr_scheduler_type="linear",
            warmup_steps=max(1, round(warmup * steps)),
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=seed,
            use_cpu=True,
            bf16=autocast,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(
            model,
            arguments,
            data_collator=Collator(pad),
            train_dataset=as_rows(features),
            callbacks=[Ticks(clock)],
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
