"""Time and memory of a training step, Graftune against HF PEFT with its Trainer. One command:

    python benchmarks/step_time.py --train e2e/train.jsonl --out runs/step_time.csv

Steps of 16 rows of E2E on random bases: LoRA of rank 8 and prefixes of 20 rows, both without the base's dropout.
Every side is a process of its own, in turns. Peak memory is what training adds to the weights. The share is the
step's floor (``shapes.floor_flops``) a second, over the machine's best product of that precision in the same round.
The gradient error compares both sides on the same rows with the same adapter.

Both loops run as they come. So part of the ratio is that Graftune batches rows of similar length where the Trainer
pads random ones, and in fp32, on processors that are not Intel's, that torch's MKL is slower there than oneDNN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from sides import shapes
from sides.figures import WARM
from sides.processes import side
from sides.records import Record, Records, numbers, read, where
from sides.tables import facts, markdown, median, ratio

METHODS = ("lora", "prefix")
ALLOWED = 1e-5  # of the gradient
MORE = {"tiny-decoder": 8}  # times as many steps, each of a tenth of a second


class Side(NamedTuple):
    """A program and the precision it computes in, by its own name and by that of the peak product."""

    program: str
    precision: str
    product: str


PEFT, OURS = Side("step_peft", "fp32", "fp32"), Side("step_graftune", "fp32", "fp32")
AUTOCAST, BF16 = Side("step_peft", "autocast", "bf16"), Side("step_graftune", "bf16", "bf16")
SIDES = (PEFT, OURS, AUTOCAST, BF16)


def measure(shape: str, method: str, train: Path, steps: int, rounds: int, threads: int, records: Records) -> None:
    """All rounds of one shape and method."""
    steps *= MORE.get(shape, 1)
    total = steps + WARM
    floor = shapes.floor_flops(shape, shapes.rows(train, 16 * total), total)
    error = side("gradients", shape, method, train, threads=threads)["error"]
    for number in range(rounds):
        peak = side("product_peak", threads=threads)
        for program, precision, product in SIDES:
            found = side(program, shape, method, precision, train, steps, threads=threads)
            records.add(
                shape=shape,
                method=method,
                side=program,
                precision=precision,
                round=number,
                seconds=found["seconds"],
                peak_bytes=found["peak_bytes"],
                loss_first=found["losses"][0],
                loss_last=found["losses"][-1],
                product_gflops=peak[product] / 1e9,
                floor_flops=floor,
                share=floor / found["seconds"] / peak[product],
                gradient_error=error,
                steps=steps,
                seed=0,
                threads=found["threads"],
            )
            typer.echo(f"{shape} {method} {program} {precision}: {found['seconds']:.3f} s", err=True)


def summary(rows: list[Record]) -> str:
    """Both tables: how many times as fast, and what each side takes."""
    speed, cost = [], []
    for shape, method in dict.fromkeys((row["shape"], row["method"]) for row in rows):
        own = where(rows, shape=shape, method=method)
        by = {s: where(own, side=s.program, precision=s.precision) for s in SIDES}
        error = f"{float(own[0]['gradient_error']):.1e}"
        pairs = ((PEFT, OURS), (PEFT, BF16), (AUTOCAST, BF16))
        speed.append((shape, method, *(ratio(by[a], by[b]) for a, b in pairs), error))
        for a, b in ((PEFT, OURS), (AUTOCAST, BF16)):
            both = (by[a], by[b])
            seconds = [f"{median(s, 'seconds'):.3f}" for s in both]
            peaks = [f"{median(s, 'peak_bytes', 1e-6):,.0f}" for s in both]
            shares = [f"{median(s, 'share', 100):.0f} %" for s in both]
            memory = f"{median(by[a], 'peak_bytes') / median(by[b], 'peak_bytes'):.1f}"
            cost.append((shape, method, f"{a.precision}, {b.precision}", *seconds, *peaks, memory, *shares))
    times = ("PEFT fp32 / ours fp32", "PEFT fp32 / ours bf16", "PEFT autocast / ours bf16")
    return "\n\n".join(
        (
            markdown(("shape", "method", *times, "gradient error"), speed),
            markdown(
                (
                    *("shape", "method", "precision", "PEFT s/step", "ours s/step"),
                    *("PEFT peak MB", "ours peak MB", "ratio", "PEFT share", "ours share"),
                ),
                cost,
            ),
            facts(rows),
        )
    )


def main(
    train: Annotated[Path, typer.Option(help="E2E's train.jsonl.")],
    out: Annotated[Path, typer.Option(help="The csv to write.")],
    steps: Annotated[
        int, typer.Option(min=1, help="Measured steps of a run, after the warm-up; 8 times as many for tiny-decoder.")
    ] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each side, in turns.")] = 3,
    shape: Annotated[list[str] | None, typer.Option("--shapes", help="Only this shape; can be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option("--methods", help="Only this method; can be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every side.")] = 2,
) -> None:
    """Measure, write the csv and print it as tables; fails where the gradients are not the same."""
    records = Records(out)
    for chosen in shape or shapes.SHAPES:
        for name in method or METHODS:
            measure(chosen, name, train, steps, rounds, threads, records)
    rows = read(out)
    typer.echo(summary(rows))
    if max(numbers(rows, "gradient_error")) > ALLOWED:
        typer.echo(f"error: a gradient is more than {ALLOWED:g} away from PEFT's", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
