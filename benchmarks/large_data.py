"""Training on more data than memory holds: time to the first step and memory, against `datasets` tokenising alone.

    python benchmarks/large_data.py --gigabytes 10 --folder DIR --out docs/results/large-data.csv

The rows are the sample grammar's, each with its number, so that no two are alike. Each side is a process of its own
with an empty cache; both use the same number of processes, and run at one time, so that both see the same machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import psutil
import typer
from sides.records import Records

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from sample_data import table_to_text

BASELINE = """
import sys
from datasets import Features, List, Value, load_dataset
from transformers import AutoTokenizer
from graftune import bases
tokenizer = AutoTokenizer.from_pretrained(bases.path("tiny-decoder"))
rows = load_dataset("json", data_files=sys.argv[1], split="train", num_proc=int(sys.argv[2]))
def encode(batch):
    return {"ids": tokenizer(batch["table"]).input_ids, "labels": tokenizer(batch["text"]).input_ids}
ids = List(Value("int32"))
features = Features({"ids": ids, "labels": ids})
rows.map(encode, batched=True, num_proc=int(sys.argv[2]), remove_columns=rows.column_names, features=features)
"""
TRAIN = """
import sys
import graftune as gt
gt.train("tiny-decoder", gt.LoRA(), train=sys.argv[1], eval=sys.argv[2], eval_rows=8, max_steps=20, batch_size=8,
         processes=int(sys.argv[3]), out=sys.argv[4], generate={"max_new_tokens": 4})
"""


def write(file: Path, size: float, joined: int) -> int:
    """A JSON Lines file of that many bytes; the number of its rows, each of which joins some of the sample rows."""
    written = number = 0
    samples = cycle(table_to_text("train", 20_000))
    with file.open("w", encoding="utf-8") as out:
        while written < size:
            number += 1
            parts = list(islice(samples, joined))
            table = " | ".join([f"number : {number}", *(part["table"] for part in parts)])
            written += out.write(json.dumps({"table": table, "text": " ".join(part["text"] for part in parts)}) + "\n")
    return number


def measured(code: str, *arguments: object, cache: Path, until: Path | None = None) -> dict[str, float]:
    """Seconds of a process and until ``until`` has a line, and the peaks of its resident memory, in GiB.

    ``private`` leaves out pages of files, which the system takes back when it needs them, and adds up all processes.
    """
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)
    peaks = {"private": 0.0}
    first: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            try:
                own = psutil.Process(process.pid)
                family = [own, *own.children(recursive=True)]
                private = sum(one.memory_full_info().uss for one in family) / 2**30
            except psutil.Error:
                continue
            peaks["private"] = max(peaks["private"], private)
            if until is not None and not first and until.exists() and until.stat().st_size:
                first.append(time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code_of_exit = process.wait()
    done.set()
    watcher.join()
    if code_of_exit:
        raise RuntimeError(f"a side has ended with {code_of_exit}")
    return {"seconds": time.monotonic() - began, "first_step": first[0] if first else float("nan"), **peaks}


def main(
    folder: Annotated[
        Path, typer.Option(help="Where the data and the caches are written; it needs about four times their size.")
    ],
    out: Annotated[Path, typer.Option(help="The csv.")],
    gigabytes: Annotated[float, typer.Option(min=0.001, help="Size of the data.")] = 10.0,
    baseline: Annotated[float | None, typer.Option(help="Size of what the baseline tokenises (default: all).")] = None,
    joined: Annotated[int, typer.Option(min=1, help="Rows of the sample data that make one row: its length.")] = 4,
    processes: Annotated[int, typer.Option(min=1, help="Processes of both sides.")] = 1,
) -> None:
    """Write the data, train on a little of it, then on all of it beside the baseline, and write the csv."""
    folder.mkdir(parents=True, exist_ok=True)
    data, small, part = (folder / f"{name}.jsonl" for name in ("data", "small", "part"))
    rows = {data: write(data, gigabytes * 1e9, joined), small: write(small, 1e5, joined)}
    rows[part] = write(part, (baseline or gigabytes) * 1e9, joined)
    records = Records(out)

    def add(side: str, file: Path, found: dict[str, float]) -> None:
        records.add(
            side=side, rows=rows[file], joined=joined, gigabytes=file.stat().st_size / 1e9, processes=processes, **found
        )

    def train(side: str, file: Path) -> None:
        run = folder / file.stem
        arguments = (file, small, processes, run)
        add(side, file, measured(TRAIN, *arguments, cache=folder / f"cache-{file.stem}", until=run / "log.jsonl"))

    train("graftune, 100 kB", small)
    with ThreadPoolExecutor() as pool:  # at one time, so that both sides see the same machine
        both = [
            pool.submit(train, "graftune", data),
            pool.submit(
                lambda: add("datasets alone", part, measured(BASELINE, part, processes, cache=folder / "cache"))
            ),
        ]
        for one in both:
            one.result()
    typer.echo(out.read_text())


if __name__ == "__main__":
    typer.run(main)
