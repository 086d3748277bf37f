"""The matrix of runs: methods × seeds on one base and one data set."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from transformers import PreTrainedModel

from graftune import files
from graftune.checkpoint import native
from graftune.comparison import folder, report, results, table
from graftune.comparison.candidates import Candidate, candidates
from graftune.comparison.measure import inference, peak_memory
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, Method
from graftune.tasks import registry
from graftune.tasks.task import Task
from graftune.training import distributed
from graftune.training import recipe as recipes
from graftune.training.loop import Report
from graftune.training.prepare import Experiment, prepare, task_of
from graftune.training.recipe import Recipe
from graftune.training.tables import Tables, announce, read_tables
from graftune.training.trained import evaluate, train_adapter, use_of

#: With neither data nor length given: the embedded set, in a few minutes on two cores.
DEMO: dict[str, dict[str, int]] = {
    "generate": {"max_steps": 60, "batch_size": 12, "eval_rows": 24, "eval_every": 15},
    "classify": {"max_steps": 60, "batch_size": 16, "eval_every": 15},
}


@dataclass(frozen=True)
class Event:
    """What a watcher is told: which run of how many, and how far it is."""

    method: str
    seed: int
    number: int
    total: int
    stage: str
    report: Report | None = None


Watch = Callable[[Event], None]


def every_method(task: Task) -> list[str]:
    """All methods there are, the untrained ones first; without a new head there is none to probe."""
    names = sorted(PRESETS, key=lambda name: PRESETS[name][0].trainable)
    return [name for name in names if name != "head" or task.new_head]


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
    """Train every method with the same data, budget and seeds; write and return the table.

    ``out`` receives ``comparison.json``, ``results.jsonl`` (a line per finished run, so that a killed
    comparison continues), ``table.md``, ``report.html`` and the adapters. ``options`` are recipe keys. A run
    that fails is a line with its reason; the others go on. Raises GraftuneError for anything wrong before.
    """
    distributed.join()
    if not distributed.first():
        watch, say = quiet, lambda _: None
    out = Path(out)
    named = base if isinstance(base, str) else base.config.name_or_path
    recipe = recipes.given(named, recipe, options)
    _check_whole(recipe)
    if recipe.train is None and recipe.max_steps is None and recipe.epochs is None:
        usual = DEMO.get(recipe.task, {})
        recipe = recipe.model_copy(update={k: v for k, v in usual.items() if k not in recipe.model_fields_set})
    seeds = seeds or recipe.seeds or 1
    if methods is None and recipe.methods is None:
        methods = every_method(registry.make(recipe.task, **recipe.section(recipe.task)))
    methods = methods or recipe.methods or ()
    chosen = candidates(methods, recipe)
    tables = read_tables(recipe)
    announce(tables, recipe, say)
    resolved = recipes.dump(
        recipes.with_methods(
            recipe,
            [one.method for one in chosen if one.label == one.method.preset],
            method=None,
            methods=[one.label for one in chosen],
            seeds=seeds,
        )
    )
    folder.check(out, resolved)
    done = folder.finished(out)
    data = {"train": tables.train.fingerprint, "evaluate": tables.eval.fingerprint}
    folder.check_data(out, data)
    distributed.agree("options, data and folder", (resolved, data, sorted(done)))
    plan = list(enumerate([(one, recipe.seed + k) for k in range(seeds) for one in chosen], 1))
    todo = [(number, one, seed) for number, (one, seed) in plan if (one.label, seed) not in done]
    if todo:
        given = None if isinstance(base, str) else base
        bases = _Bases(recipe, tables, [one.method for _, one, _ in todo], given, tokenizer)
        if distributed.first():
            files.write_text(out / "recipe.yaml", resolved)
            if not (out / "comparison.json").exists():
                folder.write_header(out, recipe, bases.any(), [recipe.seed + k for k in range(seeds)], data)
        try:
            _run(todo, bases, recipe, out, watch, len(plan))
        finally:  # also after Ctrl-C: what was finished is shown
            if distributed.first() and (out / "results.jsonl").exists():
                with files.disk_errors(out):
                    report.write(out)
    if not folder.finished(out):
        raise GraftuneError(
            "every run failed",
            received=results.load(out).runs[-1].error,
            expected="at least one that does not",
            do=f"read the reasons in {out / 'results.jsonl'}",
        )
    return table.terminal(results.load(out))


class _Bases:
    """The base loaded for each way of asking it: with a head for trained methods, with words for the others.

    Raises GraftuneError where none of these can be had; where only some can, when the others are asked for.
    """

    def __init__(
        self,
        recipe: Recipe,
        tables: Tables,
        methods: Sequence[Method],
        given: PreTrainedModel | None,
        tokenizer: Any,
    ) -> None:
        self.recipe = recipe
        self.found: dict[str, Experiment | GraftuneError] = {}
        for task in (task_of(recipe, method) for method in methods):
            if task.name not in self.found:
                try:
                    self.found[task.name] = prepare(recipe, task, tables, given, tokenizer)
                except GraftuneError as error:
                    self.found[task.name] = error
        self.any()

    def any(self) -> Experiment:
        """One of them, the first that could be had."""
        for found in self.found.values():
            if isinstance(found, Experiment):
                return found
        raise next(error for error in self.found.values() if isinstance(error, GraftuneError))

    def for_method(self, method: Method) -> Experiment:
        """The one that the method runs on."""
        found = self.found[task_of(self.recipe, method).name]
        if isinstance(found, GraftuneError):
            raise found
        return found


def _run(
    todo: Sequence[tuple[int, Candidate, int]], bases: _Bases, recipe: Recipe, out: Path, watch: Watch, total: int
) -> None:
    """Run what is left to do; each result is a line in ``results.jsonl`` as soon as it is there."""
    for number, one, seed in todo:

        def tell(stage: str, report: Report | None = None, n: int = number, c: Candidate = one, s: int = seed) -> None:
            watch(Event(c.label, s, n, total, stage, report))

        seeded = one.recipe(recipe).model_copy(update={"seed": seed})
        try:
            experiment = bases.for_method(one.method)
            result = _one(experiment, seeded, one.method, out / "adapters" / f"{one.slug}-seed{seed}", tell)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone, and the others go on
            result = {"status": "failed", "error": _said(error)}
        if distributed.first():
            line = {"method": one.method.preset, "label": one.label, "seed": seed, **result}
            folder.append(out / "results.jsonl", line)
        distributed.told(None)  # the others wait until the line is written


def _said(error: Exception) -> str:
    """A mistake in what was given in its own words; anything else with its kind and its place."""
    if isinstance(error, GraftuneError):
        return str(error)
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def _one(
    experiment: Experiment, recipe: Recipe, method: Method, place: Path, tell: Callable[..., None]
) -> dict[str, Any]:
    """Train, measure and evaluate one method with one seed: a result line without its names."""
    tell("training")
    with peak_memory() as peak:
        trained = train_adapter(experiment, recipe, method, watch=lambda r: tell("training", r))
    try:
        if not distributed.first():
            return {}
        native.save(trained.model.adapter(trained.name), experiment.base, place, use_of(trained, experiment, recipe))
        trained.model.adapter(trained.name).fold()  # measured as it is served
        tell("evaluating")
        evaluation = evaluate(trained, experiment, recipe)
        tell("timing")
        own, plain = inference(trained, experiment)
    finally:
        trained.model.close()
    progress = trained.progress
    final = [point["loss"] for point in progress.curve[-10:]]
    return {
        "status": "done",
        "error": None,
        "metrics": evaluation.metrics,
        "parameters_trained": trained.count.trained,
        "parameters_stored": trained.count.stored,
        "bytes_stored": native.size(place),
        "train_seconds": progress.seconds,
        "tokens_per_second": progress.tokens / progress.seconds if progress.seconds else None,
        "peak_memory_bytes": peak.bytes if method.trainable else None,
        "inference_seconds_per_example": own,
        "base_inference_seconds_per_example": plain,
        "curve": progress.curve,
        "train_loss": sum(final) / len(final) if final else None,
        "examples": results.examples(evaluation.predictions),
        "untrained": not method.trainable,
    }


def _check_whole(recipe: Recipe) -> None:
    """Raise GraftuneError for a base in parts: a run that fails would leave it so to the others."""
    if recipe.shard:
        raise GraftuneError(
            "compare does not shard the base",
            received="shard=true",
            expected="a base that every process holds whole, since a run that fails must leave it so",
            do="leave shard out, or train the methods one by one",
        )
