"""What each kernel of ``graftune.model.kernels`` is worth on this machine: forward and backward, in turns.

    python benchmarks/kernel_time.py --out docs/results/kernel-time.csv

Shapes are those of a micro-batch of 512 tokens on GPT-2 124M and SmolLM2-135M. Gradients go to the activations alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import torch
import typer
from sides.records import Record, Records, read, where
from sides.tables import facts, markdown, median, ratio
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from graftune.comparison.measure import in_turns
from graftune.model.kernels import attention, linear, norm

Function = Callable[[Tensor], Tensor]
ROUNDS = 5
REPEATS = 20


def pairs(dtype: torch.dtype) -> dict[str, tuple[Tensor, Function, Function]]:
    """Kernel -> input, what Transformers and torch do with it, what the kernel does."""
    module: object = SimpleNamespace(is_causal=True, num_key_value_groups=1)
    mask = torch.ones(5, 1, 96, 96, dtype=torch.bool).tril()
    wide, states = torch.randn(5, 96, 3072, dtype=dtype), torch.randn(5, 96, 576, dtype=dtype)
    rms, gelu = LlamaRMSNorm(576).to(dtype).requires_grad_(False), NewGELUActivation()

    def attend(function: Callable[..., tuple[Tensor, object]]) -> Function:
        return lambda x: function(module, x, x, x, mask)[0]

    found: dict[str, tuple[Tensor, Function, Function]] = {
        "attention (5 x 12 heads x 96 tokens)": (
            torch.randn(5, 12, 96, 64, dtype=dtype),
            attend(sdpa_attention_forward),
            attend(attention.short),
        ),
        "GELU (480 x 3072)": (wide, gelu, lambda x: nn.functional.gelu(x, approximate="tanh")),
        "RMSNorm (480 x 576)": (states, rms, lambda x: norm._RMSNorm.apply(x, rms.weight, rms.variance_epsilon)),
    }
    if dtype == torch.float32:
        weight = torch.randn(3072, 768)
        found["linear map (480 x 768 x 3072)"] = (
            torch.randn(5, 96, 768),
            lambda x: nn.functional.linear(x, weight),
            lambda x: linear._Linear.apply(x, weight, None),
        )
    return found


def repeated(function: Function, x: Tensor) -> Callable[[], None]:
    """Forward and backward, some times."""
    x = x.clone().requires_grad_()
    cotangent = torch.randn_like(function(x))

    def run() -> None:
        for _ in range(REPEATS):
            x.grad = None
            function(x).backward(cotangent)

    return run


def summary(rows: list[Record]) -> str:
    """A line for each kernel and precision."""
    lines = []
    for kernel, precision in dict.fromkeys((row["kernel"], row["precision"]) for row in rows):
        theirs, ours = (where(rows, kernel=kernel, precision=precision, side=side) for side in ("torch", "graftune"))
        times = [f"{median(side, 'seconds', 1e3):.3f}" for side in (theirs, ours)]
        lines.append((kernel, precision, ratio(theirs, ours), *times))
    return f"{markdown(('kernel', 'precision', 'ratio', 'torch ms', 'ours ms'), lines)}\n\n{facts(rows)}"


def main(out: Annotated[Path, typer.Option(help="The csv to write.")]) -> None:
    """Measure, write the csv and print it as a table."""
    torch.manual_seed(0)
    records = Records(out)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for kernel, (x, theirs, ours) in pairs(dtype).items():
            for number in range(ROUNDS):
                seconds = in_turns(repeated(theirs, x), repeated(ours, x))
                for side, value in zip(("torch", "graftune"), seconds, strict=True):
                    records.add(
                        kernel=kernel,
                        precision=precision,
                        side=side,
                        round=number,
                        seconds=value / REPEATS,
                        threads=torch.get_num_threads(),
                    )
    typer.echo(summary(read(out)))


if __name__ == "__main__":
    typer.run(main)
