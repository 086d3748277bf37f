"""The engine of a comparison: it has the trials of a plan run until none is left, and writes each line at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from graftune import files
from graftune.comparison import folder, results, units, workers
from graftune.comparison.assignment import Assignment
from graftune.comparison.assignment import quiet as quiet_trial
from graftune.comparison.candidates import Candidate
from graftune.comparison.estimate import Cost, Estimate, Sizes, estimate
from graftune.comparison.lines import Run as Line
from graftune.comparison.plan import Plan, Trial
from graftune.comparison.settings import Settings
from graftune.comparison.timed import STEPS
from graftune.comparison.workers import Run
from graftune.config.recipe import Recipe
from graftune.training import distributed
from graftune.training.loop import Report


@dataclass(frozen=True)
class Event:
    """What a watcher is told: what a trial does and how far it is, and how many of about how many have finished."""

    trial: Trial
    finished: int
    total: int
    stage: str
    report: Report | None = None

    @property
    def method(self) -> str:
        """The label of the candidate."""
        return self.trial.label

    @property
    def is_over(self) -> bool:
        """Whether this is the last of its trial."""
        return self.stage == ENDED


ENDED = "ended"
Watch = Callable[[Event], None]


def quiet(_: Event) -> None:
    """Nobody watches."""


@dataclass
class Engine:
    """Who runs what of a plan. A trial is begun when the plan is ready for it and a worker is free."""

    plan: Plan
    settings: Settings
    out: Path
    sizes: Sizes
    watch: Watch = quiet
    say: Callable[[str], None] = lambda _: None
    base: PreTrainedModel | None = None
    tokenizer: Any = None
    _lines: list[Line] = field(default_factory=list)
    _running: dict[Future[dict[str, Any]], Trial] = field(default_factory=dict)

    def run(self) -> None:
        """Run what is ready until nothing is. What a long comparison will take is estimated before."""
        self._lines = [line for line in results.load(self.out).runs if not line.to_repeat]
        with workers.of(self.settings, self.base) as (run, pool, count):
            expected = self._estimated(run, pool, count) if self.settings.is_long and not self._lines else None
            began = time.perf_counter()
            while True:
                running = self._running.values()
                ready = [one for one in self.plan.ready([line.finished for line in self._lines]) if one not in running]
                for one in ready[: count - len(running)]:
                    self._begin(one, run, pool)
                if not running:
                    break
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    trial = self._running.pop(future)
                    self._lines.append(self._kept(future.result()))
                    self._tell(trial, ENDED)
        if expected is not None:
            self._took(expected, time.perf_counter() - began)

    def _begin(self, one: Trial, run: Run, pool: Executor) -> None:
        name = f"{results.slug(one.label)}-seed{one.seed}"
        place = (self.out / "adapters" / (name if one.rows is None else f"{name}-rows{one.rows}")).resolve()
        self._running[pool.submit(run, self._assigned(one, place), lambda *told: self._tell(one, *told))] = one

    def _assigned(self, one: Trial, place: Path) -> Assignment:
        candidate = next(candidate for candidate in self.settings.chosen if candidate.label == one.label)
        return Assignment(self._recipe, candidate, one, place, self.settings.choosing, self.base, self.tokenizer)

    @property
    def _recipe(self) -> Recipe:
        return self.settings.recipe.model_copy(update={"threads": workers.threads(self.settings.recipe)})

    def _tell(self, one: Trial, stage: str, report: Report | None = None) -> None:
        finished = len(self._lines)
        total = max(self.plan.expected, finished + len(self._running))
        self.watch(Event(one, finished, total, stage, report))

    def _estimated(self, run: Run, pool: Executor, count: int) -> Estimate:
        """What the plan will take, from a timed start of each candidate beside as many others as there will be."""

        def cost(one: Candidate) -> Cost | None:
            trial = Trial("timing", one.label, self.plan.tuning, self.plan.centres[one.label])
            began = time.perf_counter()
            line = run(self._assigned(trial, Path()), quiet_trial)
            if line["status"] != "done":
                return None  # its trials will say why
            found = Cost(**{name.name: line[name.name] for name in fields(Cost)})
            return replace(found, begin=found.begin + time.perf_counter() - began - line["seconds"])

        costs = {one.label: pool.submit(cost, one) for one in self.settings.chosen}
        known = {label: found for label, future in costs.items() if (found := future.result()) is not None}
        expected = estimate(self.plan, known, self.sizes, count)
        self.say(f"this will take {expected.said()} (from {STEPS} timed steps of each candidate)")
        if distributed.first():
            files.write_json(
                self.out / "estimate.json",
                {**asdict(expected), "costs": {label: asdict(one) for label, one in known.items()}},
            )
        return expected

    def _took(self, expected: Estimate, seconds: float) -> None:
        self.say(f"it took {units.duration(seconds)}, where {units.duration(expected.seconds)} were estimated")
        if distributed.first():
            file = self.out / "estimate.json"
            files.write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "took": seconds})

    def _kept(self, line: dict[str, Any]) -> Line:
        """Write a line, and the figures of its rows beside it."""
        if distributed.first():
            folder.append(self.out, line)
        return Line.model_validate(distributed.told(line))
