"""The plan of a comparison: which trials are still to be run, as a pure function of those that have finished.

Killing, resuming and many workers need no code of their own: whoever is free takes a trial that `Plan.ready` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from graftune.comparison import search

Stage = Literal["screen", "confirm", "report"]


@dataclass(frozen=True)
class Effort:
    """How much is spent on finding a candidate's rate, beside its reported runs.

    `points` rates are screened with `share` of the budget each, with a whole schedule of their own; then the best and
    the one below it are tried with the whole budget (`confirm`), and one more between the two best (`refine`).
    """

    points: int
    share: float = 0.25
    confirm: bool = True
    refine: bool = False


EFFORTS: Final[dict[str, Effort]] = {
    "quick": Effort(3, confirm=False),
    "normal": Effort(5),
    "thorough": Effort(5, refine=True),
}


@dataclass(frozen=True)
class Trial:
    """A candidate with a rate and a seed, on a share of the budget; `head` is the rate of a new head."""

    stage: Stage
    label: str
    seed: int
    rate: float | None = None
    share: float = 1.0
    head: float | None = None


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
    is `tuning`, the seed of the search.
    """

    centres: Mapping[str, float | None]
    seeds: Sequence[int]
    tuning: int
    effort: Effort = EFFORTS["normal"]
    known: Mapping[str, float] = field(default_factory=dict)
    spacings: Mapping[str, float] = field(default_factory=dict)
    probe: str | None = None

    def ready(self, finished: Iterable[Finished]) -> list[Trial]:
        """The trials that can be run now, none of which has finished; none are left once all is done."""
        done = list(finished)
        head = None
        if self.probe is not None:
            head = self.rate(self.probe, done)
            if head is None and not self._hopeless(self.probe, done):
                return self._wanted(self.probe, done, None)
        return [trial for label in self.centres for trial in self._wanted(label, done, head)]

    def rate(self, label: str, finished: Sequence[Finished]) -> float | None:
        """The rate that the candidate is reported with; None where nothing is trained, or it is not found yet."""
        if label in self.known:
            return self.known[label]
        if self.centres[label] is None or self._to_search(label, finished):
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
        searched = [] if label in self.known or self.centres[label] is None else self._to_search(label, finished)
        own = None if label == self.probe else head
        if searched:
            return [Trial(stage, label, self.tuning, rate, share, own) for stage, rate, share in searched]
        rate = self.rate(label, finished)
        if rate is None and self.centres[label] is not None:
            return []  # every rate has failed
        done = {one.trial.seed for one in finished if one.trial.label == label and one.trial.stage == "report"}
        return [Trial("report", label, seed, rate, 1.0, own) for seed in self.seeds if seed not in done]

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
        return label not in self.known and not self._to_search(label, finished) and self.rate(label, finished) is None
