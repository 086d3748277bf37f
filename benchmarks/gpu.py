"""What this project promises, on CUDA, in a few minutes: the core of the laws, a training step, mixed decoding, 4 bits.

    python benchmarks/gpu.py --out runs/gpu.csv

Each check is a row of the csv: its name, its figure, what it should be, and whether it is. A check that breaks is a row
with its reason, and the others go on. On a machine without CUDA the same script runs with `--device cpu`, as a test of
itself; its 4-bit part is then left out.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import LoraConfig, get_peft_model
from sides import shapes
from sides.records import Records
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig

import graftune as gt
from graftune.methods.method import PRESETS, make

ROWS, LENGTH, NEW = 16, 64, 24
TEXTS = ("The ferry leaves", "Tea is", "Once upon a time there was")
SMALL: dict[str, dict[str, Any]] = {"prefix": {"hidden": 16}, "p-tuning": {"hidden": 16}}
MERGED = ("lora", "dora", "ia3", "freeze")


@dataclass(frozen=True)
class Check:
    """A figure, and the most that it may be; None where it is only told."""

    name: str
    figure: float
    unit: str
    limit: float | None = None


def batch(tokenizer: Any, device: str) -> dict[str, torch.Tensor]:
    """Three texts, padded on the left."""
    return dict(tokenizer(list(TEXTS), padding=True, return_tensors="pt").to(device))


def disturb(model: Any, name: str) -> None:
    """Move all that is trained away from its start."""
    with torch.no_grad():
        for parameter in model.parameters_of(name):
            parameter.add_(0.05 * torch.randn_like(parameter))


def laws(device: str) -> Iterator[Check]:
    """In fp32: rows of different methods as each alone, the base untouched, merged and loaded adapters the same."""
    place = gt.bases.path("tiny-decoder")
    base = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left")
    plain, inputs = copy.deepcopy(base), batch(tokenizer, device)
    model = gt.AdaptedModel(base, tokenizer)
    apart = ("head", "full", "p-tuning")  # no new head here; a copy of everything; virtual tokens around the text
    names = [name for name, (kind, _) in PRESETS.items() if kind.trainable and name not in apart]
    for name in names:
        model.add(name, make(name, **SMALL.get(name, {})))
        disturb(model, name)
    with torch.no_grad():
        before = plain(**inputs).logits
        for name in names:
            rows = [name, None, names[(names.index(name) + 1) % len(names)]]
            together = model(**inputs, adapters=rows).logits[:, -1]
            alone = torch.stack([model(**inputs, adapters=row).logits[place, -1] for place, row in enumerate(rows)])
            yield Check(f"{name} beside others, as alone", difference(together, alone), "of the largest logit", 1e-4)
        yield Check("the base without an adapter", difference(model(**inputs).logits, before), "", 1e-5)
        for name in set(names) & set(MERGED):
            own, merged = model(**inputs, adapters=name).logits, model.merge(name)(**inputs).logits
            yield Check(f"{name} merged", difference(merged, own), "of the largest logit", 1e-4)
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                model.save(name, Path(folder) / name)
                model.load(f"{name} again", Path(folder) / name)
                again = model(**inputs, adapters=f"{name} again").logits
                yield Check(f"{name} loaded", difference(again, model(**inputs, adapters=name).logits), "", 1e-6)
                model.remove(f"{name} again")


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def training(device: str, shape: str) -> Iterator[Check]:
    """Steps of LoRA on random ids in bf16: seconds and memory, beside PEFT's; on the same rows the loss falls."""
    for side in ("graftune", "peft"):
        base = shapes.base(shape, torch.bfloat16).to(device)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, base.config.vocab_size, (ROWS, LENGTH), generator=generator).to(device)
        if side == "graftune":
            model = gt.AdaptedModel(base, shapes.tokenizer())
            model.add("a", make("lora"))
            trained, call = list(model.parameters_of("a")), partial(model, adapters="a")
        else:
            targets = ["c_attn"] if "gpt2" in shape else ["q_proj", "v_proj"]
            model = get_peft_model(base, LoraConfig(r=8, lora_alpha=32, target_modules=targets))
            trained, call = [p for p in model.parameters() if p.requires_grad], model
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        reset(device)
        losses, began = [], 0.0
        for step in range(13):
            if step == 3:
                began = now(device)
            loss = call(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        yield Check(f"{shape} lora, a step of {side}", (now(device) - began) / 10, "s")
        yield Check(f"{shape} lora, memory of {side}", peak(device), "MiB")
        yield Check(f"{shape} lora, loss of {side} after 12 steps", losses[-1] / losses[0], "of the first", 1.0)


def decoding(device: str) -> Iterator[Check]:
    """A token of 32 rows, with 32 LoRAs and with none, in bf16 on GPU, by the seconds of NEW of them."""
    base = shapes.base("smollm2-135m", torch.bfloat16 if device == "cuda" else torch.float32).to(device)
    model = gt.AdaptedModel(base, shapes.tokenizer())
    names = [f"user{number}" for number in range(32)]
    for name in names:
        model.add(name, make("lora"))
        disturb(model, name)
    ids = torch.randint(5, 1000, (32, 16), generator=torch.Generator().manual_seed(0)).to(device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    seconds = {}
    for label, rows in (("none", [None] * 32), ("one", names[:1] * 32), ("32", names)):
        for turn in range(2):
            began = now(device)
            model.generate(**inputs, adapters=rows, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
            seconds[label] = now(device) - began if turn else 0.0
        yield Check(f"a token of 32 rows, {label} adapters", 1000 * seconds[label] / NEW, "ms")
    yield Check("32 adapters against none", seconds["32"] / seconds["none"], "times")


def four_bits(device: str) -> Iterator[Check]:
    """A base in nf4: its memory, and that LoRA trains on it."""
    if device != "cuda":
        return
    config = LlamaConfig(hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16)
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        quantized = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantized, device_map={"": 0})
    yield Check("nf4, memory of the base", base.get_memory_footprint() / 2**20, "MiB")
    model = gt.AdaptedModel(base, shapes.tokenizer())
    model.add("a", make("lora"))
    optimizer = torch.optim.AdamW(model.parameters_of("a"), lr=1e-3)
    ids = torch.randint(0, 1000, (8, LENGTH), generator=torch.Generator().manual_seed(0)).to(device)
    losses = []
    for _ in range(10):
        loss = model(input_ids=ids, labels=ids, adapters="a").loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    yield Check("nf4, loss of lora after 9 steps", losses[-1] / losses[0], "of the first", 1.0)


def commands(device: str) -> Iterator[Check]:
    """`train` and `compare` as people call them, on the shipped bases."""
    with tempfile.TemporaryDirectory() as folder:
        began = now(device)
        run = gt.train("tiny-decoder", make("lora"), out=f"{folder}/run", max_steps=20, eval_rows=8)
        yield Check("train: 20 steps of tiny-decoder", now(device) - began, "s")
        yield Check("train: loss", float(run.metrics["loss"]), "", 20.0)
        gt.compare(
            "tiny-encoder", ["lora", "bitfit"], out=f"{folder}/compare", task="classify", effort="quick", max_steps=20
        )
        yield Check("compare: quick, two methods", now(device) - began, "s")


def now(device: str) -> float:
    """The time, once all that was begun is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset(device: str) -> None:
    """Forget the peak of memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float:
    """The peak of memory in MiB; not measured on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else float("nan")


def main(
    out: Annotated[Path, typer.Option(help="The csv to write.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    only: Annotated[str | None, typer.Option(help="Parts with commas between.")] = None,
) -> None:
    """Run every part; exit status 1 where a check is not what it should be."""
    torch.manual_seed(0)
    parts: dict[str, Callable[[], Iterator[Check]]] = {
        "laws": partial(laws, device),
        "training": partial(training, device, "gpt2-124m" if device == "cuda" else "tiny-decoder"),
        "large": partial(training, device, "smollm2-135m" if device == "cuda" else "tiny-decoder"),
        "decoding": partial(decoding, device),
        "nf4": partial(four_bits, device),
        "commands": partial(commands, device),
    }
    records, wrong = Records(out), 0
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    for part in only.split(",") if only else parts:
        try:
            for check in parts[part]():
                ok = check.limit is None or check.figure <= check.limit
                wrong += not ok
                records.add(part=part, check=check.name, figure=check.figure, unit=check.unit, limit=check.limit,
                            ok=ok, error="", device=where)  # fmt: skip
                typer.echo(f"{'' if ok else 'WRONG '}{part}: {check.name}: {check.figure:.4g} {check.unit}")
        except Exception as error:  # noqa: BLE001 - a part that breaks is a row, and the others go on
            wrong += 1
            said = f"{type(error).__name__}: {error}"
            records.add(part=part, check="", figure="", unit="", limit="", ok=False, error=said, device=where)
            typer.echo(f"BROKEN {part}: {said}")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
