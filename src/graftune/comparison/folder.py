"""The folder of a comparison: whose it is, what is finished in it, its header and its lines."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from graftune import files
from graftune.comparison import limits, results
from graftune.comparison.plan import Plan
from graftune.comparison.results import figures_of
from graftune.comparison.settings import Settings
from graftune.comparison.splits import chosen_by
from graftune.config.recipe import Recipe
from graftune.datasets import samples
from graftune.errors import GraftuneError
from graftune.training.prepare import Experiment
from graftune.training.record import versions


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
            "data": dict(settings.data),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
