"""The plan of a comparison: which trials are still to be run, as a pure function of those that have finished.

Killing, resuming and many workers need no code of their own: whoever is free takes a trial that `Plan.ready` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from graftune.comparison import points, search
from graftune.comparison.points import Options, Point
from graftune.comparison.spaces import Space

Stage = Literal["timing", "screen", "confirm", "report"]
SEARCH: Final[tuple[Stage, Stage]] = ("screen", "confirm")


@dataclass(frozen=True)
class Effort:
    """How much is spent on finding a candidate's rate, beside its reported runs.

    `points` rates (none: the usual one is taken, and nothing is searched) are screened with `share` of the budget
    each, with a whole schedule of their own; then the best and the one below it are tried with the whole budget
    (`confirm`), and one more between the two best (`refine`).
    """

    points: int
    share: float = 0.25
    confirm: bool = True
    refine: bool = False


EFFORTS: Final[dict[str, Effort]] = {
    "none": Effort(0, confirm=False),
    "quick": Effort(3, confirm=False),
    "normal": Effort(5),
    "thorough": Effort(5, refine=True),
}


@dataclass(frozen=True)
class Trial:
    """A candidate with a rate and a seed, on a share of the budget; `head` is the rate of a new head.

    Without a rate the usual one is taken. `rows` are how many are trained on, all of them by default.
    """

    stage: Stage
    label: str
    seed: int
    rate: float | None = None
    share: float = 1.0
    head: float | None = None
    rows: int | None = None
    options: Options = ()
    """Options of the method that are searched with the rate."""


@dataclass(frozen=True)
class Finished:
    """A trial and its score on the rows to choose by, larger is better; None where it failed or diverged."""

    trial: Trial
    score: float | None


@dataclass(frozen=True)
class Plan:
    """Candidates by label, each with the centre of its rates; None where nothing is trained.

    `known` are rates that are not searched for. `probe` is the candidate that trains the new head alone: the rate found
    for it is that of all others' heads, so that it comes first. `seeds` are those of the reported runs, none of which
    is `tuning`, the seed of the search; each is run on every number of training rows in `sizes`, None for all.
    """

    centres: Mapping[str, float | None]
    seeds: Sequence[int]
    tuning: int
    effort: Effort = EFFORTS["normal"]
    known: Mapping[str, float] = field(default_factory=dict)
    spacings: Mapping[str, float] = field(default_factory=dict)
    probe: str | None = None
    sizes: Sequence[int | None] = (None,)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    """Options that are searched with the rate, of those candidates that have any."""

    @property
    def expected(self) -> int:
        """How many trials there will be, where no search is extended."""
        searched = sum(sum(self.to_search(label)) for label in self.centres)
        return searched + len(self.centres) * len(self.seeds) * len(self.sizes)

    def to_search(self, label: str) -> tuple[int, int]:
        """How many short and how many full runs a candidate's search has, where it is not extended."""
        if not self.searches(label):
            return 0, 0
        short = self.spaces[label].trials if label in self.spaces else self.effort.points + self.effort.refine
        return short, 2 * self.effort.confirm

    def searches(self, label: str) -> bool:
        """Whether the candidate's rate is searched for."""
        return self.effort.points > 0 and label not in self.known and self.centres[label] is not None

    def ready(self, finished: Iterable[Finished]) -> list[Trial]:
        """The trials that can be run now, none of which has finished; none are left once all is done."""
        done = list(finished)
        head = None
        if self.probe is not None and (self.searches(self.probe) or self.probe in self.known):
            found = self.point(self.probe, done)
            head = None if found is None else found.rate
            if head is None and not self._hopeless(self.probe, done):
                return self._wanted(self.probe, done, None)
        # A head's rate may have been found anew, when trials that had been killed were repeated.
        done = [one for one in done if one.trial.label == self.probe or one.trial.head == head]
        wanted = [trial for label in self.centres for trial in self._wanted(label, done, head)]
        # Searches first, then the reported runs seed by seed, so that a comparison cut short has one seed of each.
        return sorted(wanted, key=lambda one: (one.stage == "report", one.seed if one.stage == "report" else 0))

    def point(self, label: str, finished: Sequence[Finished]) -> Point | None:
        """What the candidate is reported with; None where nothing is trained, or it is not found yet."""
        if label in self.known:
            return Point(self.known[label])
        if not self.searches(label) or self._searching(label, finished):
            return None
        return points.best(self.tried(label, finished, "confirm" if self.effort.confirm else "screen"))

    def tried(self, label: str, finished: Sequence[Finished], stage: Stage) -> dict[Point, float | None]:
        """The scores of what a candidate was tried with in one stage."""
        own = [one for one in finished if one.trial.label == label and one.trial.stage == stage]
        return {Point(one.trial.rate, one.trial.options): one.score for one in own if one.trial.rate is not None}

    def _wanted(self, label: str, finished: Sequence[Finished], head: float | None) -> list[Trial]:
        """What is to be run for a candidate now."""
        own = None if label == self.probe else head
        if self.searches(label) and (trials := self._searching(label, finished)):
            return [replace(trial, head=own) for trial in trials]
        point = self.point(label, finished)
        if point is None and self.searches(label):
            return []  # every rate has failed
        rate, options = point or (None, ())
        done = {
            (one.trial.seed, one.trial.rows)
            for one in finished
            if (one.trial.stage, one.trial.label) == ("report", label)
            if point is None or (one.trial.rate, one.trial.options) == (rate, options)
        }
        return [
            Trial("report", label, seed, rate, 1.0, own, rows, options)
            for seed in self.seeds
            for rows in self.sizes
            if (seed, rows) not in done
        ]

    def _searching(self, label: str, finished: Sequence[Finished]) -> list[Trial]:
        """The search's trials that can be run now."""
        screened, confirmed = (self.tried(label, finished, stage) for stage in SEARCH)
        short, full = self._to_screen(label, screened), list[Point]()
        if not short and self.effort.confirm:
            full = [point for point in self._to_confirm(label, screened) if point not in confirmed]
        screens = [Trial("screen", label, self.tuning, rate, self.effort.share, options=own) for rate, own in short]
        return screens + [Trial("confirm", label, self.tuning, rate, options=own) for rate, own in full]

    def _to_screen(self, label: str, screened: Mapping[Point, float | None]) -> list[Point]:
        centre, spacing = self.centres[label], self.spacings.get(label, search.SPACING)
        assert centre is not None
        if label in self.spaces:
            return self.spaces[label].to_try(centre, screened, spacing, self.effort.points)
        tried = {point.rate: score for point, score in screened.items()}
        rates = search.to_try(centre, tried, spacing, self.effort.points)
        if not rates and self.effort.refine and (between := search.refinement(tried, spacing)) is not None:
            rates = [between]
        return [Point(rate) for rate in rates]

    def _to_confirm(self, label: str, screened: Mapping[Point, float | None]) -> list[Point]:
        """The best rate and the one below it; of several options the two best points."""
        if label in self.spaces:
            return points.ranked(screened)[:2]
        return [Point(rate) for rate in search.to_confirm({point.rate: score for point, score in screened.items()})]

    def _hopeless(self, label: str, finished: Sequence[Finished]) -> bool:
        """Whether all is tried and nothing of it came out."""
        return self.searches(label) and not self._searching(label, finished) and self.point(label, finished) is None
