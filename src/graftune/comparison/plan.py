"""The plan of a comparison: which trials are still to be run, as a pure function of those that have finished.

Killing, resuming and many workers need no code of their own: whoever is free takes a trial that `Plan.ready` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from graftune.comparison import search

Stage = Literal["timing", "screen", "confirm", "report"]


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

    @property
    def expected(self) -> int:
        """How many trials there will be, where no search is extended."""
        rates = self.effort.points + 2 * self.effort.confirm + self.effort.refine
        searched = sum(rates for label in self.centres if self.searches(label))
        return searched + len(self.centres) * len(self.seeds) * len(self.sizes)

    def searches(self, label: str) -> bool:
        """Whether the candidate's rate is searched for."""
        return self.effort.points > 0 and label not in self.known and self.centres[label] is not None

    def ready(self, finished: Iterable[Finished]) -> list[Trial]:
        """The trials that can be run now, none of which has finished; none are left once all is done."""
        done = list(finished)
        head = None
        if self.probe is not None and (self.searches(self.probe) or self.probe in self.known):
            head = self.rate(self.probe, done)
            if head is None and not self._hopeless(self.probe, done):
                return self._wanted(self.probe, done, None)
        wanted = [trial for label in self.centres for trial in self._wanted(label, done, head)]
        # Searches first, then the reported runs seed by seed, so that a comparison cut short has one seed of each.
        return sorted(wanted, key=lambda one: (one.stage == "report", one.seed if one.stage == "report" else 0))

    def rate(self, label: str, finished: Sequence[Finished]) -> float | None:
        """The rate that the candidate is reported with; None where nothing is trained, or it is not found yet."""
        if label in self.known:
            return self.known[label]
        if not self.searches(label) or self._to_search(label, finished):
            return None
        if self.effort.confirm:
            return search.best(self.tried(label, finished, "confirm"))
        return search.best(self.tried(label, finished, "screen"))

    def tried(self, label: str, finished: Sequence[Finished], stage: Stage) -> dict[float, float | None]:
        """The scores of a candidate's rates in one stage."""
        own = [one for one in finished if one.trial.label == label and one.trial.stage == stage]
        return {one.trial.rate: one.score for one in own if one.trial.rate is not None}

    def _wanted(self, label: str, finished: Sequence[Finished], head: float | None) -> list[Trial]:
        """What is to be run for a candidate now."""
        searched = self._to_search(label, finished) if self.searches(label) else []
        own = None if label == self.probe else head
        if searched:
            return [Trial(stage, label, self.tuning, rate, share, own) for stage, rate, share in searched]
        rate = self.rate(label, finished)
        if rate is None and self.searches(label):
            return []  # every rate has failed
        trials = [Trial("report", label, seed, rate, 1.0, own, rows) for seed in self.seeds for rows in self.sizes]
        done = {
            (one.trial.seed, one.trial.rows)
            for one in finished
            if (one.trial.stage, one.trial.label) == ("report", label)
        }
        return [trial for trial in trials if (trial.seed, trial.rows) not in done]

    def _to_search(self, label: str, finished: Sequence[Finished]) -> list[tuple[Stage, float, float]]:
        """The stage, rate and share of the budget of the search's trials that can be run now."""
        centre = self.centres[label]
        assert centre is not None
        screened = self.tried(label, finished, "screen")
        spacing = self.spacings.get(label, search.SPACING)
        rates = search.to_try(centre, screened, spacing, self.effort.points)
        if not rates and self.effort.refine and (between := search.refinement(screened, spacing)) is not None:
            rates = [between]
        if rates or not self.effort.confirm:
            return [("screen", rate, self.effort.share) for rate in rates]
        confirmed = self.tried(label, finished, "confirm")
        return [("confirm", rate, 1.0) for rate in search.to_confirm(screened) if rate not in confirmed]

    def _hopeless(self, label: str, finished: Sequence[Finished]) -> bool:
        """Whether all is tried and nothing of it came out."""
        return self.searches(label) and not self._to_search(label, finished) and self.rate(label, finished) is None
