"""The record of a run: what its folder holds beside the adapter."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from graftune import files
from graftune.checkpoint import fingerprint, native
from graftune.errors import GraftuneError
from graftune.model.adapter import Count
from graftune.tasks.bound import Evaluation
from graftune.training.prepare import Experiment
from graftune.training.state import Progress
from graftune.training.trained import TrainedAdapter

RECORD = "run.json"
DATA = "data.json"  # fingerprints of what a run is made from, there from its beginning
WORDS = {"train": "rows to train on", "eval": "rows to evaluate on", "base": "weights of the base"}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its adapter's counts, and its metrics on the evaluation data."""

    out: Path
    count: Count
    metrics: dict[str, float]
    progress: Progress


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("graftune", "torch", "transformers", "datasets", "sacrebleu")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def check_folder(out: Path, text: str, resume: bool) -> None:
    """Raise GraftuneError where ``out`` holds another run, or one already."""
    kept = out / "recipe.yaml"
    if kept.exists():
        if kept.read_text(encoding="utf-8") != text and resume:
            raise GraftuneError(
                f"{out} holds a run of another recipe",
                received="options that differ from recipe.yaml there",
                expected="the options the run was started with",
                do="start it with the same options, or choose another --out",
            )
        if not resume:
            raise GraftuneError(
                f"{out} already holds a run",
                received="a folder with a recipe.yaml",
                expected="a new folder",
                do="continue it with --resume, or choose another --out",
            )


def begin_record(out: Path, resolved: str, data: Mapping[str, str]) -> None:
    """Write the recipe of a run that begins, and the fingerprints of what it is made from."""
    files.write_text(out / "recipe.yaml", resolved)
    files.write_json(out / DATA, dict(data))


def check_same(out: Path, data: Mapping[str, str]) -> None:
    """Raise GraftuneError where the run in ``out`` was begun on other rows or another base, by their fingerprints."""
    file = out / DATA
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if changed := [WORDS[name] for name in data if before.get(name, data[name]) != data[name]]:
        raise GraftuneError(
            f"what the run in {out} was begun with has changed",
            received=f"other {' and other '.join(changed)}",
            expected="the same files, to go on with it",
            do="give the files as they were, or begin anew with another --out",
        )


def read_record(out: Path) -> Run:
    """A run read back from its folder."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    log = (out / "log.jsonl").read_text(encoding="utf-8") if (out / "log.jsonl").exists() else ""
    progress = Progress(record["steps"], record["train_seconds"], record["tokens"])
    progress.curve = [json.loads(line) for line in log.splitlines()]
    return Run(out, Count(**record["parameters"]), record["metrics"], progress)


def write_record(out: Path, trained: TrainedAdapter, experiment: Experiment, evaluation: Evaluation) -> None:
    from graftune.training.plot import curve_svg

    predictions = [json.dumps(p, ensure_ascii=False) for p in evaluation.predictions]
    files.write_text(out / "predictions.jsonl", "".join(f"{line}\n" for line in predictions))
    if trained.progress.curve:
        files.write_text(out / "curve.svg", curve_svg(trained.progress.curve))
    files.write_json(
        out / RECORD,
        {
            "metrics": evaluation.metrics,
            "notes": evaluation.notes,
            "parameters": {"trained": trained.count.trained, "stored": trained.count.stored},
            "bytes_stored": native.size(out / "adapter"),
            "steps": trained.progress.step,
            "train_seconds": trained.progress.seconds,
            "tokens": trained.progress.tokens,
            "base_fingerprint": fingerprint.of_base(experiment.base),
            "data": {
                kind: {
                    "source": t.source,
                    "rows": len(t.rows),
                    "left_out": len(t.left_out),
                    "fingerprint": t.fingerprint,
                }
                for kind, t in (("train", experiment.tables.train), ("eval", experiment.tables.eval))
            },
            "versions": versions(),
            "threads": torch.get_num_threads(),
        },
    )
