"""What the frozen-trunk cache saves, from the second epoch on: the same runs with it and without it, in turns.

    python benchmarks/trunk_cache.py --data DATA --out docs/results/trunk-cache.csv

DATA has banking77/train.jsonl and e2e/train.jsonl. Bases are random, in the shape of BERT-base and of GPT-2 124M.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from sides import shapes, tables
from sides.figures import Clock
from sides.records import Records, read, where
from transformers import BertConfig, BertForSequenceClassification

import graftune as gt
from graftune.config.recipe import Recipe
from graftune.datasets.rows import Row
from graftune.methods.method import Method
from graftune.tasks.bound import BoundTask
from graftune.tasks.classify import Classify
from graftune.tasks.features import Features, PromptEncoder
from graftune.templates.template import Template
from graftune.training.budget import budget_of
from graftune.training.loop import fit
from graftune.training.speed import fast

ROWS, EPOCHS = 128, 3


@dataclass(frozen=True)
class Case:
    """One method on one task; ``bound`` is the ratio of the products alone, without the head."""

    task: str
    method: Method
    bound: float


CASES = {
    "classify, Freeze last 2 of 12": Case("classify", gt.Freeze(last=2), 16 / 6),
    "classify, LoRA on the last 2 of 12": Case("classify", gt.LoRA(last=2), 14 / 4),
    "generate, LoRA on the last 2 of 12": Case("generate", gt.LoRA(last=2, targets=("c_attn",)), 14 / 4),
    "generate, Freeze last 2 of 12": Case("generate", gt.Freeze(last=2), 16 / 6),
}


def load(case: Case, data: Path, dtype: torch.dtype) -> tuple[Any, BoundTask, list[Features]]:
    """The base, the task, and the first rows of its data as features."""
    if case.task == "generate":
        base = shapes.base("gpt2-124m", dtype)
        return base, shapes.task(base.config), shapes.rows(data / "e2e/train.jsonl", ROWS)
    lines = (data / "banking77/train.jsonl").read_text(encoding="utf-8").splitlines()
    # Every row's neighbour is appended: texts of about fifty tokens.
    texts = [json.loads(line) for line in lines[: 2 * ROWS]]
    rows = [
        Row(a["text"] + " " + b["text"], a["label"], n)
        for n, (a, b) in enumerate(zip(texts[::2], texts[1::2], strict=True), 1)
    ]
    fitted = Classify().fit(rows)
    torch.manual_seed(0)
    base = BertForSequenceClassification(BertConfig(num_labels=len(fitted.known))).to(dtype).eval()
    task = fitted.bind(base.config, shapes.tokenizer())
    encoder = PromptEncoder(task.processor, Template("{input}"), 10**6)
    return base, task, [features for row in rows for features in task.encode(row, encoder)]


def run(
    base: Any, case: Case, task: BoundTask, features: Sequence[Features], cached: bool
) -> tuple[float, list[float]]:
    """Mean seconds of a step from the second epoch on, and the losses of all steps."""
    model = gt.AdaptedModel(base)
    recipe = Recipe(batch_size=16, epochs=EPOCHS, lr=1e-4, cache_trunk=cached)
    model.add("a", case.method, heads=task.task.head(base.config).modules(base), seed=0)
    clock = Clock()
    budget = budget_of(recipe, case.method, len(features), model)
    with fast(model, recipe, lambda _: None):
        tick = lambda report: clock.tick()
        done = fit(model, "a", task, features, [], budget, watch=tick)
    model.close()
    steps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    return statistics.mean(steps[budget.steps // EPOCHS :]), [point["loss"] for point in done.curve]


def main(
    data: Annotated[Path, typer.Option(help="Folder with banking77/ and e2e/.")],
    out: Annotated[Path, typer.Option(help="The csv.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each pair is run.")] = 3,
) -> None:
    """Write the csv and print its table."""
    records = Records(out)
    for name, case in CASES.items():
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            base, task, features = load(case, data, dtype)
            for turn in range(rounds):
                results = {cached: run(base, case, task, features, cached) for cached in (True, False)}
                apart = max(abs(a / b - 1) for a, b in zip(*(losses for _, losses in results.values()), strict=True))
                for cached, (seconds, losses) in results.items():
                    records.add(
                        case=name, precision=precision, round=turn, cached=cached, seconds=seconds,
                        last_loss=losses[-1], largest_relative_difference_of_losses=apart, bound=round(case.bound, 2),
                        tokens_a_row=round(statistics.mean(len(f.ids) for f in features), 1),
                        threads=torch.get_num_threads(),
                    )  # fmt: skip
    typer.echo(table(out))


def table(path: Path) -> str:
    """The csv as Markdown."""
    rows = read(path)
    lines = []
    for name in dict.fromkeys(row["case"] for row in rows):
        for precision in ("fp32", "bf16"):
            pick = partial(where, where(rows, case=name, precision=precision))
            kept, plain = pick(cached=True), pick(cached=False)
            lines.append(
                [name, precision, tables.ratio(plain, kept), kept[0]["bound"],
                 f"{tables.median(plain, 'seconds'):.3f}", f"{tables.median(kept, 'seconds'):.3f}",
                 f"{max(float(row['largest_relative_difference_of_losses']) for row in kept):.1e}"]
            )  # fmt: skip
    heads = ["case", "precision", "times faster", "bound of the products", "s/step without", "with", "losses differ by"]
    return tables.markdown(heads, lines) + "\n\n" + tables.facts(rows)


if __name__ == "__main__":
    typer.run(main)
