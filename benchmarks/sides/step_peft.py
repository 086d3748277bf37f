"""HF PEFT and its Trainer on E2E rows: SHAPE METHOD PRECISION TRAIN STEPS."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from sides import shapes
from sides.figures import WARM, Clock, run


def config(shape: str, method: str) -> Any:
    """LoRA of rank 8 on queries and values (GPT-2: on its one map for q, k and v), or a prefix of 20 rows."""
    if method == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20)
    targets = ["c_attn"] if shape.startswith("gpt2") else ["q_proj", "v_proj"]
    return LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules=targets)


def collate(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Rows padded to the longest, as DataCollatorForSeq2Seq does."""
    width = max(len(f["input_ids"]) for f in features)

    def pad(key: str, value: int) -> torch.Tensor:
        return torch.tensor([f[key] + [value] * (width - len(f[key])) for f in features])

    mask = torch.tensor([[1] * len(f["input_ids"]) + [0] * (width - len(f["input_ids"])) for f in features])
    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100), "attention_mask": mask}


class Ticks(TrainerCallback):
    """Tells the clock about the end of each step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.tick()


def main(shape: str, method: str, precision: str, train: str, steps: str) -> None:
    """Time ``steps`` steps of 16 rows after the warm-up."""
    transformers.logging.set_verbosity_error()
    total = int(steps) + WARM
    model = get_peft_model(shapes.base(shape), config(shape, method))
    data = [{"input_ids": f.ids, "labels": f.labels} for f in shapes.rows(Path(train), 16 * total)]
    clock = Clock()

    def fit() -> list[float]:
        with tempfile.TemporaryDirectory() as place:
            arguments = TrainingArguments(
                place,
                per_device_train_batch_size=16,
                max_steps=total,
                learning_rate=1e-4,
                use_cpu=True,
                bf16=precision == "autocast",
                report_to=[],
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            trainer = Trainer(model, arguments, data_collator=collate, train_dataset=data, callbacks=[Ticks(clock)])
            trainer.train()
            return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    run(fit, clock)


if __name__ == "__main__":
    main(*sys.argv[1:])
