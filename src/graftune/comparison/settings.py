"""What a comparison is: candidates, data, seeds and effort, settled once and handed down whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from transformers import PreTrainedModel

from graftune.comparison import limits, neutral, spaces
from graftune.comparison.assignment import short_run
from graftune.comparison.candidates import Candidate, candidates
from graftune.comparison.estimate import Sizes
from graftune.comparison.plan import EFFORTS, Effort, Plan
from graftune.comparison.spaces import Space
from graftune.comparison.splits import FEW, FOLDS, Splits, chosen_by
from graftune.config import recipe as recipes
from graftune.config.recipe import Recipe
from graftune.config.written import split
from graftune.errors import GraftuneError, unknown
from graftune.methods.method import PRESETS, Method
from graftune.methods.rates import Conditions
from graftune.model.anatomy import Anatomy
from graftune.tasks import registry
from graftune.tasks.task import Task
from graftune.training.budget import points_every, steps_of
from graftune.training.prepare import Experiment, prepare, task_of
from graftune.training.trained import CURVE_ROWS

#: With neither data nor length given: the embedded set, in a few minutes on two cores.
DEMO: dict[str, dict[str, int]] = {
    "generate": {"max_steps": 60, "batch_size": 12, "eval_rows": 24, "eval_every": 15},
    "classify": {"max_steps": 60, "batch_size": 16, "eval_every": 15},
}
#: What it compares: one of each kind.
DEMO_METHODS = ("hard-prompt", "lora", "prefix", "bitfit")
SEEDS = {"none": 1, "quick": 1, "normal": 3, "thorough": 6}
TUNING = 1000  # is added to the recipe's seed for the trials of a search, whose seeds are not reported
PROBE = "head"


@dataclass(frozen=True, eq=False)
class Settings:
    """A comparison, settled: nothing of it is looked up again."""

    recipe: Recipe
    chosen: Sequence[Candidate]
    seeds: Sequence[int]
    effort: Effort
    splits: Splits
    data: Mapping[str, str]
    """Fingerprints of the rows."""

    @property
    def choosing(self) -> bool:
        """Whether rows are held out to choose by."""
        return self.effort.points > 0

    @cached_property
    def resolved(self) -> str:
        """All of it as YAML, but for who does the work."""
        usual = [one.method for one in self.chosen if one.label == one.method.preset]
        named = {"methods": [one.label for one in self.chosen], "seeds": len(self.seeds)}
        compare = self.recipe.compare.model_copy(update=named)
        return recipes.dump(recipes.with_methods(self.recipe, usual, method=None, compare=compare))

    @property
    def portable(self) -> bool:
        """Whether another process can make all of the methods."""
        return all(type(one.method).__module__ != "__main__" and one.method.preset in PRESETS for one in self.chosen)

    def experiment(self, base: PreTrainedModel | None, tokenizer: Any) -> Experiment:
        """The base prepared for one of the candidates, the first of trained ones that it can be for.

        Raises GraftuneError where it can be for none.
        """
        errors: list[GraftuneError] = []
        methods = sorted((one.method for one in self.chosen), key=lambda method: not method.trainable)
        tasks: list[Task] = []
        for task in (task_of(self.recipe, method) for method in methods):
            if any(type(task) is type(other) for other in tasks):
                continue
            tasks.append(task)
            try:
                return prepare(self.recipe, task, self.splits.tables, base, tokenizer)
            except GraftuneError as error:
                errors.append(error)
        raise errors[0]

    @property
    def is_long(self) -> bool:
        """Whether it is worth an estimate: where rates are searched on the user's own data."""
        return self.choosing and self.recipe.train is not None

    def sizes(self, experiment: Experiment) -> Sizes:
        """The steps and rows of the plan's trials."""
        rows = len(self.splits.to_train(self.recipe.seed).rows)
        steps = steps_of(self.recipe, rows - chosen_by(rows) if self.choosing else rows)
        short = short_run(steps, self.effort.share)
        return Sizes(
            short_steps=short,
            steps=steps,
            choose_rows=chosen_by(rows),
            curve_rows=min(CURVE_ROWS, chosen_by(rows)),
            short_points=-(-short // points_every(self.recipe, short)),
            points=-(-steps // points_every(self.recipe, steps)),
            report_rows=len(self.splits.tables.eval.rows),
            folds=FOLDS if rows < FEW else 1,
        )

    def plan(self, experiment: Experiment) -> Plan:
        """The plan, with the candidates' centres for this base."""
        anatomy = Anatomy(experiment.base)
        rows = len(experiment.tables.train.rows)
        steps = steps_of(self.recipe, rows)
        on = Conditions(anatomy.kind, anatomy.width, self.recipe.batch_size, steps, anatomy.has_deep_head)
        return self.plan_of({one.label: _centre(one, on) for one in self.chosen})

    def plan_of(self, centres: Mapping[str, float | None]) -> Plan:
        """The plan, with centres that are known already."""
        labels = [one.label for one in self.chosen]
        probe = PROBE if PROBE in labels and self.recipe.head_lr is None else None
        return Plan(
            {label: centres.get(label) for label in labels},
            self.seeds,
            self.recipe.seed + TUNING,
            self.effort,
            known=self._known(),
            spacings={one.label: one.method.spacing for one in self.chosen},
            probe=probe,
            spaces=self._spaces(),
            sizes=[None if one == "all" else one for one in self.recipe.compare.rows] or [None],
        )

    def _spaces(self) -> dict[str, Space]:
        """The options that are searched with a rate, by label."""
        compare, known = self.recipe.compare, self._known()
        if compare.search == "grid" and (compare.space or compare.trials is not None):
            raise GraftuneError(
                "a grid searches rates alone, as many as the effort says",
                received=f"space: {', '.join(compare.space)}" if compare.space else f"trials: {compare.trials}",
                expected="search: optuna, which searches several options at once",
                do="add --search optuna, or leave it out",
            )
        if compare.search == "grid":
            return {}
        trials = compare.trials or 4 * self.effort.points
        found = spaces.read(compare.space, self.chosen, trials, self.recipe.seed + TUNING)
        if not found or not self.effort.points or known.keys() & found.keys():
            raise GraftuneError(
                "Optuna has nothing to search",
                received=f"space: {', '.join(compare.space) or 'empty'}, known rates: {', '.join(known) or 'none'}",
                expected="options of candidates whose rates are searched too",
                do="give --space METHOD.OPTION=VALUES, without a known rate of that method, and an effort above none",
            )
        spaces.check_installed()
        return found

    def _known(self) -> dict[str, float]:
        """Rates that are given, by label: for the label itself, its method, or all."""
        found: dict[str, float] = {}
        names = {one.label for one in self.chosen} | {one.method.preset for one in self.chosen}
        for name in self.recipe.compare.known:
            if name not in names:
                raise unknown("candidate with a known rate", name, names)
        for one in self.chosen:
            known = self.recipe.compare.known
            rate = known.get(one.label, known.get(one.method.preset))
            rate = one.training.get("lr", rate)
            rate = self.recipe.sections.get(one.method.preset, {}).get("lr", self.recipe.lr) if rate is None else rate
            if rate is not None and one.method.trainable:
                found[one.label] = float(rate)
        return found


def settings_of(recipe: Recipe, methods: Sequence[Method | str] | None, seeds: int | None) -> Settings:
    """A comparison out of a recipe and what was given beside it; the data are read. Raises GraftuneError."""
    if recipe.shard:
        raise GraftuneError(
            "compare does not shard the base",
            received="shard=true",
            expected="a base that every process holds whole, since a run that fails must leave it so",
            do="leave shard out, or train the methods one by one",
        )
    name = recipe.compare.effort or ("quick" if recipe.train is None else "normal")
    recipe = recipe.model_copy(update={"compare": recipe.compare.model_copy(update={"effort": name})})
    if recipe.train is None and recipe.max_steps is None and recipe.epochs is None:
        usual = DEMO.get(recipe.task, {})
        recipe = recipe.model_copy(update={k: v for k, v in usual.items() if k not in recipe.model_fields_set})
    task = registry.make(recipe.task, **recipe.section(recipe.task))
    limits.read(recipe.compare.limit)
    effort = EFFORTS[name]
    usual_methods = DEMO_METHODS if recipe.train is None and recipe.task in DEMO else every_method(task)
    if isinstance(methods, str):
        methods = split(methods)
    given = list((recipe.compare.methods or usual_methods) if methods is None else methods)
    chosen = candidates(given, recipe)
    searches = effort.points and task.new_head and any(one.method.trainable for one in chosen)
    if searches and recipe.head_lr is None and PROBE not in [one.label for one in chosen]:
        chosen = [*chosen, *candidates([PROBE], recipe)]
    count = recipe.compare.seeds or SEEDS[name] if seeds is None else seeds
    if not isinstance(count, int) or count < 1:
        raise GraftuneError("a number of seeds is not one", received=count, expected="1 or more", do="give another")
    splits = Splits.read(recipe)
    _check_sizes(recipe.compare.rows, len(splits.to_train(recipe.seed).rows))
    if effort.points and any(one.method.trainable for one in chosen):
        splits.check()
    data = {"train": splits.tables.train.fingerprint, "evaluate": splits.tables.eval.fingerprint}
    if splits.test is not None:
        data["test"] = splits.test.fingerprint
    if recipe.compare.neutral is not None:
        data["tell forgetting"] = sha256("\n".join(neutral.passages(recipe.compare.neutral)).encode()).hexdigest()
    return Settings(recipe, chosen, [recipe.seed + k for k in range(count)], effort, splits, data)


def _check_sizes(sizes: Sequence[int | str], rows: int) -> None:
    """Raise GraftuneError for numbers of training rows that there are not."""
    if wrong := [one for one in sizes if isinstance(one, int) and not 2 <= one <= rows]:
        raise GraftuneError(
            "so many training rows cannot be drawn",
            received=f"rows: {', '.join(map(str, wrong))}",
            expected=f"numbers from 2 to {rows:,}, or all",
            do="give others",
        )


def every_method(task: Task) -> list[str]:
    """All methods there are, the untrained ones first; without a new head there is none to probe."""
    names = sorted(PRESETS, key=lambda name: PRESETS[name][0].trainable)
    return [name for name in names if name != PROBE or task.new_head]


def _centre(one: Candidate, on: Conditions) -> float | None:
    return one.method.usual_rate(on) if one.method.trainable else None
