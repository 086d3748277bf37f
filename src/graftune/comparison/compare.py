"""A comparison: candidates at their best rates, on one base and one data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from transformers import PreTrainedModel

from graftune import files
from graftune.comparison import folder, report, results, table, units, workers
from graftune.comparison.assignment import Assignment
from graftune.comparison.assignment import quiet as quiet_trial
from graftune.comparison.candidates import Candidate
from graftune.comparison.estimate import Cost, Estimate, Sizes, estimate
from graftune.comparison.lines import Run as Line
from graftune.comparison.plan import Plan, Trial
from graftune.comparison.settings import Settings, settings_of
from graftune.comparison.timed import STEPS
from graftune.comparison.workers import Run
from graftune.config import recipe as recipes
from graftune.config.recipe import Recipe
from graftune.errors import GraftuneError
from graftune.methods.method import Method
from graftune.training import distributed
from graftune.training.loop import Report
from graftune.training.tables import announce


@dataclass(frozen=True)
class Event:
    """What a watcher is told: which trial of about how many, and how far it is."""

    trial: Trial
    number: int
    total: int
    stage: str
    report: Report | None = None

    @property
    def method(self) -> str:
        """The label of the candidate."""
        return self.trial.label


Watch = Callable[[Event], None]


def quiet(_: Event) -> None:
    """Nobody watches."""


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
    named = base if isinstance(base, str) else base.config.name_or_path
    settings = settings_of(recipes.given(named, recipe, options), methods, seeds)
    given = None if isinstance(base, str) else base
    recipe = settings.recipe
    announce(settings.splits.tables, recipe, say)
    folder.check(out, settings.resolved)
    folder.check_data(out, settings.data)
    distributed.agree("options, data and folder", (settings.resolved, settings.data, folder.count(out)))
    if not _over(settings, out):
        experiment = settings.experiment(given, tokenizer)
        plan = settings.plan(experiment)
        if distributed.first():
            files.write_text(out / "recipe.yaml", settings.resolved)
            if not (out / "comparison.json").exists():
                folder.write_header(out, settings, experiment, plan)
        sizes = settings.sizes(experiment)
        del experiment
        try:
            _carry_out(plan, settings, out, watch, say, sizes, given, tokenizer)
        finally:  # also after Ctrl-C: what was finished is shown
            if distributed.first() and (out / "results.jsonl").exists():
                with files.disk_errors(out):
                    report.write(out)
    comparison = results.load(out)
    if not any(run.status == "done" for run in comparison.reported):
        raise GraftuneError(
            "every run failed",
            received=comparison.runs[-1].error,
            expected="at least one that does not",
            do=f"read the reasons in {out / 'results.jsonl'}",
        )
    return table.terminal(comparison)


def _over(settings: Settings, out: Path) -> bool:
    """Whether nothing is left to do."""
    header = out / "comparison.json"
    if not header.exists():
        return False
    comparison = results.load(out)
    plan = settings.plan_of(comparison.header.centres)
    return not plan.ready(comparison.finished())


def _carry_out(
    plan: Plan,
    settings: Settings,
    out: Path,
    watch: Watch,
    say: Callable[[str], None],
    sizes: Sizes,
    base: PreTrainedModel | None,
    tokenizer: Any,
) -> None:
    """Run what is ready, a trial a worker, until nothing is; each line is written as soon as it is there.

    What is left of a long comparison is estimated before.
    """
    chosen = {one.label: one for one in settings.chosen}
    recipe = settings.recipe.model_copy(update={"threads": workers.threads(settings.recipe)})
    lines = [run for run in results.load(out).runs if not run.to_repeat]
    running: dict[Future[dict[str, Any]], Trial] = {}

    def begin(one: Trial, run: Run, pool: Executor) -> None:
        candidate, number = chosen[one.label], len(lines) + len(running) + 1
        total = max(plan.expected, number)

        def tell(stage: str, told: Report | None = None) -> None:
            watch(Event(one, number, total, stage, told))

        name = f"{results.slug(one.label)}-seed{one.seed}"
        place = (out / "adapters" / (name if one.rows is None else f"{name}-rows{one.rows}")).resolve()
        given = Assignment(recipe, candidate, one, place, settings.choosing, base, tokenizer)
        running[pool.submit(run, given, tell)] = one

    expected: Estimate | None = None
    began = time.perf_counter()
    with workers.of(settings, base) as (run, pool, count):
        if settings.is_long and not lines:
            costs = _timed(run, pool, plan, recipe, settings, base, tokenizer)
            expected = estimate(plan, costs, sizes, count)
            say(f"this will take {expected.said()} (from {STEPS} timed steps of each candidate)")
            if distributed.first():
                files.write_json(out / "estimate.json", asdict(expected))
            began = time.perf_counter()
        while True:
            ready = [one for one in plan.ready([line.finished for line in lines]) if one not in running.values()]
            for one in ready[: count - len(running)]:
                begin(one, run, pool)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future)
                lines.append(_kept(out, future.result()))
    if expected is not None:
        took = time.perf_counter() - began
        say(f"it took {units.duration(took)}, where {units.duration(expected.seconds)} were estimated")
        if distributed.first():
            files.write_json(out / "estimate.json", {**asdict(expected), "took": took})


def _timed(
    run: Run,
    pool: Executor,
    plan: Plan,
    recipe: Recipe,
    settings: Settings,
    base: PreTrainedModel | None,
    tokenizer: Any,
) -> dict[str, Cost]:
    """What each candidate costs beside as many others as there will be; one whose timed start fails is left out."""

    def cost(one: Candidate) -> Cost | None:
        trial = Trial("timing", one.label, plan.tuning, plan.centres[one.label])
        began = time.perf_counter()
        line = run(Assignment(recipe, one, trial, Path(), settings.choosing, base, tokenizer), quiet_trial)
        if line["status"] != "done":
            return None  # its trials will say why
        found = Cost(**{field.name: line[field.name] for field in fields(Cost)})
        return replace(found, begin=found.begin + time.perf_counter() - began - line["seconds"])

    costs = {one.label: pool.submit(cost, one) for one in settings.chosen}
    return {label: found for label, future in costs.items() if (found := future.result()) is not None}


def _kept(out: Path, line: dict[str, Any]) -> Line:
    """Write a line, and the figures of its rows beside it."""
    if distributed.first():
        folder.append(out, line)
    return Line.model_validate(distributed.told(line))
