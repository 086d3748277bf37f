"""The folder of a comparison: whose it is, what is finished in it, its header and its lines."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout
from transformers import PreTrainedModel

from graftune import files
from graftune.checkpoint import fingerprint
from graftune.comparison import limits, results
from graftune.comparison.plan import Plan
from graftune.comparison.results import figures_of
from graftune.comparison.settings import Settings
from graftune.comparison.splits import chosen_by
from graftune.config.recipe import Recipe
from graftune.datasets import samples
from graftune.datasets.splits import duplicates_between
from graftune.errors import GraftuneError
from graftune.training.prepare import Experiment
from graftune.training.record import versions
from graftune.training.tables import key_of

BASE = "start from"  # the base among the fingerprints


def check(out: Path, text: str) -> None:
    """Raise GraftuneError where ``out`` holds another comparison."""
    kept = out / "recipe.yaml"
    if kept.exists() and kept.read_text(encoding="utf-8") != text:
        raise GraftuneError(
            f"{out} holds another comparison",
            received="options that differ from recipe.yaml there",
            expected="the same options, to continue it, or a new folder",
            do="choose another --out",
        )


def check_data(out: Path, data: Mapping[str, str]) -> None:
    """Raise GraftuneError where the comparison in ``out`` was made on other rows, by their fingerprints ``data``."""
    if not (out / "comparison.json").exists():
        return
    before = results.load(out).header.data
    if changed := [name for name in data if before.get(name, data[name]) != data[name]]:
        raise GraftuneError(
            f"the data have changed since {out} was begun",
            received=f"other rows to {' and to '.join(changed)} on",
            expected="the rows that its first results were made with",
            do="choose another --out, or give the data as they were",
        )


def check_base(out: Path, base: PreTrainedModel) -> None:
    """Raise GraftuneError where the comparison in ``out`` was made on a base with other weights."""
    before = results.load(out).header.data.get(BASE)
    if before is not None and before != fingerprint.of_base(base):
        raise GraftuneError(
            f"the base has changed since {out} was begun",
            received="a base with other weights",
            expected="the base that its first results were made with",
            do="choose another --out, or give the base as it was",
        )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Within the block no other process compares into ``out``. Raises GraftuneError where one does already."""
    with files.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise GraftuneError(
                f"another comparison is writing into {out}",
                received="a folder that is in use",
                expected="one comparison for each folder",
                do="wait until it has ended, or choose another --out",
            ) from error
    try:
        yield
    finally:
        lock.release()


def finish(out: Path) -> None:
    """Note in ``comparison.json`` that nothing is left to do."""
    header = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    files.write_json(out / "comparison.json", {**header, "finished": count(out)})


def count(out: Path) -> int:
    """How many trials have finished."""
    return len(results.load(out).runs) if (out / "comparison.json").exists() else 0


def append(out: Path, line: dict[str, Any]) -> None:
    """Add one whole line to ``results.jsonl``; a last line cut short by a kill is dropped first.

    The figures of a trial's rows, which are many, go into a file of their own, which is there before the line is.
    """
    figures = line.pop("figures", None)
    if figures is not None and line["rows"] is None:
        files.write_json(figures_of(out, line["label"], line["seed"]), figures)
    path = out / "results.jsonl"
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = kept[: kept.rfind("\n") + 1]
    files.write_text(path, whole + json.dumps(line, ensure_ascii=False) + "\n")


def _budget(recipe: Recipe) -> str:
    if recipe.max_steps is not None:
        length = f"{recipe.max_steps} steps"
    else:
        length = f"{recipe.epochs or 3:g} epochs"
    return f"{length} of {recipe.batch_size} rows, {recipe.precision}"


def _short(name: str) -> str:
    """A local path by its last two parts: a report is read elsewhere, where the rest means nothing."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.exists() else name


def write_header(out: Path, settings: Settings, experiment: Experiment, plan: Plan) -> None:
    """Write ``comparison.json``: what is compared, on what, and where."""
    tables = settings.splits.tables
    recipe, rows = settings.recipe, len(settings.splits.to_train(settings.recipe.seed).rows)
    base = experiment.base.base_model
    parameters = list(base.parameters())
    files.write_json(
        out / "comparison.json",
        {
            "task": recipe.task,
            "base": _short(recipe.base),
            "base_parameters": sum(p.numel() for p in parameters),
            "base_bytes": sum(p.numel() * p.element_size() for p in parameters),
            "train": _short(recipe.train or f"embedded {samples.name(recipe.task)}"),
            "eval": _short(recipe.eval or f"embedded {samples.name(recipe.task)}"),
            "train_rows": rows,
            "choose_rows": chosen_by(rows) if settings.choosing else 0,
            "eval_rows": len(experiment.tables.eval.rows),
            "metric": experiment.task.task.metric,
            "budget": _budget(recipe),
            "effort": settings.recipe.compare.effort,
            "seeds": list(settings.seeds),
            "centres": dict(plan.centres),
            "batch_size": recipe.batch_size,
            "limits": limits.read(recipe.compare.limit),
            "versions": versions(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
            + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"),
            "data": {**settings.data, BASE: fingerprint.of_base(experiment.base)},
            "copies": duplicates_between(tables.train, tables.eval, key_of(experiment.task.task)),
            "finished": 0,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
