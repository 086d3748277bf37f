"""HF PEFT and its Trainer on E2E rows: SHAPE METHOD PRECISION TRAIN STEPS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from peft import LoraConfig, PrefixTuningConfig, get_peft_model

from sides import shapes, trainer
from sides.figures import WARM, Clock, run


def config(shape: str, method: str) -> Any:
    """LoRA of rank 8 on queries and values (GPT-2: on its one map for q, k and v), or a prefix of 20 rows."""
    if method == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20)
    gpt2 = shape.startswith("gpt2")
    targets = ["c_attn"] if gpt2 else ["q_proj", "v_proj"]
    return LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules=targets, fan_in_fan_out=gpt2)


def main(shape: str, method: str, precision: str, train: str, steps: str) -> None:
    """Time ``steps`` steps of 16 rows after the warm-up."""
    total = int(steps) + WARM
    model = get_peft_model(shapes.base(shape), config(shape, method))
    features = shapes.rows(Path(train), 16 * total)
    clock, autocast = Clock(), precision == "autocast"
    run(
        lambda: trainer.fit(model, features, clock, steps=total, batch_size=16, lr=1e-4, autocast=autocast),
        clock,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
