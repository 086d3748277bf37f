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

from graftune.training.record import versions

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


def killed(method: str, place: Path, kills: int, moments: random.Random) -> list[dict[str, object]]:
    """Kill one method's run so often; a row per kill, with whether the run it belongs to ended in the same bits."""
    whole = place / f"{method}-whole"
    began = time.monotonic()
    subprocess.run(command(method, whole), check=True, capture_output=True)
    seconds = time.monotonic() - began
    rows: list[dict[str, object]] = []
    attempt = 0
    while len(rows) < kills:
        attempt += 1
        cut = place / f"{method}-{attempt}"
        mine: list[dict[str, object]] = []
        while True:
            process = subprocess.Popen(
                command(method, cut, *(["--resume"] if cut.exists() else [])),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            after = moments.uniform(0.1, 1.0) * seconds
            try:
                if process.wait(None if len(rows) + len(mine) == kills else after):
                    raise RuntimeError(f"a run of {method} failed by itself: {' '.join(map(str, process.args))}")
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            mine.append(
                {"method": method, "run": attempt, "kill": len(rows) + len(mine) + 1, "after_seconds": round(after, 2),
                 "steps_kept": steps_done(cut)}
            )  # fmt: skip
            typer.echo(mine[-1])
        same = fingerprint(cut) == fingerprint(whole)
        rows += [{**row, "bit_identical": same} for row in mine]
    return rows


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
            rows += killed(method, Path(place), min(each, kills - len(rows)), moments)
    facts = versions()
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    typer.echo(f"{len(rows)} kills, {sum(bool(row['bit_identical']) for row in rows)} with bit-identical adapters")
    if not all(row["bit_identical"] for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
