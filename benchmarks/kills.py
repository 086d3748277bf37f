"""Kill a training run at random moments, start it again each time, and compare it with one that was never killed.

    python benchmarks/kills.py --kills 20 --out docs/results/kills.csv

Each run of a method is killed by SIGKILL, which no program can catch, until it finishes; then the adapter and the
log have to be those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import csv
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from graftune.training.run import versions

METHODS = ("lora", "p-tuning", "prefix", "freeze", "houlsby")
#: Steps of the embedded data set; dropout where a method has it, so that random streams matter as well.
OPTIONS = [
    "--max-steps",
    "60",
    "--checkpoint-every",
    "3",
    "--batch-size",
    "8",
    "--eval-rows",
    "8",
    "--set",
    "generate.max_new_tokens=4",
    "--set",
    "eval_every=10",
    "--set",
    "keep_best=true",
]
DROPOUT = {"lora": ["--set", "lora.dropout=0.1"], "prefix": ["--set", "prefix.dropout=0.1"]}


def command(method: str, out: Path, *more: str) -> list[str]:
    """The command line of one run."""
    line = [sys.executable, "-m", "graftune", "train", "--method", method, "--out", str(out)]
    return [*line, *OPTIONS, *DROPOUT.get(method, []), *more]


def fingerprint(out: Path) -> str:
    """One digest of everything a finished run has learned and logged."""
    digest = hashlib.sha256()
    for file in [*sorted((out / "adapter").glob("*.safetensors")), out / "log.jsonl", out / "predictions.jsonl"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def steps_done(out: Path) -> int:
    """How many steps the newest checkpoint holds."""
    return max((int(f.name.removeprefix("step-")) for f in out.glob("checkpoints/step-*")), default=0)


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many kills in all.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("kills.csv"),
) -> None:
    """Write a line per kill, and fail where any run ends differently."""
    moments = random.Random(seed)
    rows: list[dict[str, object]] = []
    each = -(-kills // len(METHODS))
    with tempfile.TemporaryDirectory() as place:
        for method in METHODS:
            whole, cut = Path(place) / f"{method}-whole", Path(place) / f"{method}-cut"
            began = time.monotonic()
            subprocess.run(command(method, whole), check=True, capture_output=True)
            whole_seconds = time.monotonic() - began
            for number in range(min(each, kills - len(rows))):
                process = subprocess.Popen(
                    command(method, cut, *(["--resume"] if cut.exists() else [])),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                after = moments.uniform(0.3, 0.9) * whole_seconds * (each - number) / each
                try:
                    process.wait(after)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                rows.append(
                    {"method": method, "kill": number + 1, "after_seconds": round(after, 2),
                     "finished_before": process.returncode == 0, "steps_kept": steps_done(cut)}
                )  # fmt: skip
                typer.echo(rows[-1])
            subprocess.run(command(method, cut, "--resume"), check=True, capture_output=True)
            same = fingerprint(cut) == fingerprint(whole)
            for row in rows:
                if row["method"] == method:
                    row["bit_identical"] = same
    facts = versions()
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    killed = [row for row in rows if not row["finished_before"]]
    typer.echo(f"{len(killed)} kills, {sum(bool(row['bit_identical']) for row in killed)} with bit-identical adapters")
    if not all(row["bit_identical"] for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
