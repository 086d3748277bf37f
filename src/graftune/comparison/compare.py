"""A comparison: candidates at their best rates, on one base and one data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from transformers import PreTrainedModel

from graftune import files
from graftune.comparison import folder, report, results, table
from graftune.comparison.engine import Engine, Watch, quiet
from graftune.comparison.settings import Settings, settings_of
from graftune.config import recipe as recipes
from graftune.config.recipe import Recipe
from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.training import distributed
from graftune.training.tables import announce


def compare(
    base: PreTrainedModel | str = "tiny-decoder",
    methods: Sequence[Method | str] | None = None,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    seeds: int | None = None,
    tokenizer: Any = None,
    watch: Watch = quiet,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> RichTable:
    """Find each candidate's best rate, train it with several seeds, and judge; write and return the table.

    ``out`` receives ``comparison.json``, ``results.jsonl`` (a line per finished trial, so that a killed comparison
    continues), ``table.md``, ``report.html`` and the adapters. ``options`` are recipe keys. A trial that fails is a
    line with its reason; the others go on. Raises GraftuneError for anything wrong before.
    """
    distributed.join()
    if not distributed.first():
        watch, say = quiet, lambda _: None
    out = Path(out)
    if not isinstance(base, str | PreTrainedModel):
        raise GraftuneError(
            "this is no base",
            received=repr(base),
            expected="a Transformers model, or the folder or name of one",
            do="load one with from_pretrained, or name it",
        )
    named = base if isinstance(base, str) else base.config.name_or_path
    settings = settings_of(recipes.given(named, recipe, options), methods, seeds)
    given = None if isinstance(base, str) else base
    announce(settings.splits.tables, settings.recipe, say)
    _run(settings, out, watch, say, given, tokenizer)
    comparison = results.load(out)
    if not any(run.status == "done" for run in comparison.reported):
        raise GraftuneError(
            "every run failed",
            received=comparison.runs[-1].error,
            expected="at least one that does not",
            do=f"read the reasons in {out / 'results.jsonl'}",
        )
    return table.terminal(comparison)


def _run(
    settings: Settings,
    out: Path,
    watch: Watch,
    say: Callable[[str], None],
    given: PreTrainedModel | None,
    tokenizer: Any,
) -> None:
    """Run what is left of a comparison, and write its report."""
    folder.check(out, settings.resolved)
    folder.check_data(out, settings.data)
    distributed.agree("options, data and folder", (settings.resolved, settings.data, folder.count(out)))
    if _over(settings, out):
        if distributed.first() and results.load(out).header.finished == 0:  # it was killed after its last trial
            folder.finish(out)
            report.write(out)
        return
    experiment = settings.experiment(given, tokenizer)
    plan = settings.plan(experiment)
    with folder.locked(out) if distributed.first() else nullcontext():
        if distributed.first():
            files.write_text(out / "recipe.yaml", settings.resolved)
            if (out / "comparison.json").exists():
                folder.check_base(out, experiment.base)
            else:
                folder.write_header(out, settings, experiment, plan)
        sizes = settings.sizes(experiment)
        del experiment
        try:
            Engine(plan, settings, out, sizes, watch, say, given, tokenizer).run()
            if distributed.first():
                folder.finish(out)
        finally:  # also after Ctrl-C: what was finished is shown
            if distributed.first() and (out / "results.jsonl").exists():
                with files.disk_errors(out):
                    report.write(out)


def _over(settings: Settings, out: Path) -> bool:
    """Whether nothing is left to do."""
    header = out / "comparison.json"
    if not header.exists():
        return False
    comparison = results.load(out)
    plan = settings.plan_of(comparison.header.centres)
    return not plan.ready(comparison.finished())
