"""What a comparison says, in sentences that claim no more than its figures do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from graftune.comparison import limits, search
from graftune.comparison.lines import Run
from graftune.comparison.results import Comparison
from graftune.comparison.summary import MethodRow, decimals, quality, rows
from graftune.comparison.units import count, size_in_bytes
from graftune.comparison.verdict import Judgement, judge

LIKELY: Final = 0.05  # chance of being the best from which on it is told
MANY: Final = 6  # labels, which are counted instead of named
DIVERGED: Final = 1 / 3  # of a candidate's rates
WIDE: Final = 5  # margins that half an interval is wide, from which on rows are called few


def verdict(comparison: Comparison) -> list[str]:
    """What the numbers say; the first sentence is the answer."""
    every = rows(comparison)
    ranked = [row for row in every if row.ok]
    if not ranked:
        return ["No method has finished with a usable result."]
    judgement, digits = judge(comparison), decimals(every)
    by_label = {row.label: row for row in ranked}
    best = by_label[judgement.best] if judgement else ranked[0]
    said = _answer(judgement, comparison, digits) if judgement else _unjudged(ranked, comparison, digits)
    said += _smaller(judgement, best, by_label, digits) if judgement else []
    for name, limit in comparison.header.limits.items():
        allowed = next((row for row in ranked if limits.within(row, name, limit)), None)
        words = limits.shown(name, limit)
        said.append(
            f"Best with {words}: {allowed.label}, with {quality(allowed.quality, digits)}."
            if allowed
            else f"None has {words}."
        )
    said += _baselines(ranked)
    if overfitted := [row.label for row in ranked if row.overfits]:
        said.append(f"Overfitting (eval loss ended over 5 % above its minimum): {', '.join(overfitted)}.")
    if failed := [row.label for row in every if not row.ok]:
        said.append(f"Without a result: {', '.join(failed)}.")
    return said


def _unjudged(ranked: Sequence[MethodRow], comparison: Comparison, digits: int) -> list[str]:
    """The highest mean, and that nothing is known of how sure it is."""
    best = ranked[0]
    said = [f"Highest mean: {best.label}, with {comparison.header.metric} {quality(best.quality, digits)}."]
    if len(ranked) > 1:
        said.append("How sure that is cannot be said: not all candidates have the scores of single rows of one seed.")
    return said


def _answer(judgement: Judgement, comparison: Comparison, digits: int) -> list[str]:
    """Who is best, over whom, and how sure that is."""
    best, score = judgement.best, judgement.scores[judgement.best]
    interval = f"{score.mean:.{digits}f} ({score.low:.{digits}f} to {score.high:.{digits}f})"
    better, equal, unclear = (judgement.said(word) for word in ("better", "equal", "open"))
    with_score = f"{best}, with {comparison.header.metric} {interval}"
    margin = f"{judgement.margin:.{max(digits - 1, 1)}g}"
    if not unclear and not equal:
        said = [f"Best: {with_score}, better than all others."]
    elif not unclear:
        said = [f"Best: {with_score}. Practically equal to it, within {margin}: {', '.join(equal)}."]
    else:
        said = [f"Best on average: {with_score}. Not enough evidence to tell it from {', '.join(unclear)}."]
        if equal:
            said.append(f"Practically equal to it, within {margin}: {', '.join(equal)}.")
        said.append(_what_would_settle(judgement, margin))
    if better and (unclear or equal):
        said.append(f"Better than {', '.join(better)}.")
    likely = [label for label in judgement.labels if judgement.chances[label] >= LIKELY]
    if len(likely) > 1:
        likely.sort(key=lambda label: -judgement.chances[label])
        said.append(
            "Chance of being the best: " + ", ".join(f"{one} {judgement.chances[one]:.0%}" for one in likely) + "."
        )
    return said


def _what_would_settle(judgement: Judgement, margin: str) -> str:
    seeds, rows_needed = judgement.needed()
    ways = [f"{seeds} seeds"] if seeds and seeds > len(judgement.seeds) else []
    ways += [f"{rows_needed:,} reported rows"] if rows_needed and rows_needed > judgement.rows else []
    if not ways:
        return f"More seeds and more reported rows together would settle it (there are {_size_of(judgement)})."
    return (
        f"About {' or '.join(ways)} would let a difference of twice {margin} be seen (there are {_size_of(judgement)})."
    )


def _size_of(judgement: Judgement) -> str:
    seeds = len(judgement.seeds)
    return f"{seeds} seed{'s' * (seeds > 1)} and {judgement.rows:,} rows"


def _smaller(judgement: Judgement, best: MethodRow, by_label: dict[str, MethodRow], digits: int) -> list[str]:
    """The smallest within the margin of the best."""
    near = [label for label, one in judgement.differences.items() if one.mean <= judgement.margin]
    sized = [by_label[label] for label in near if label in by_label and by_label[label].parameters_stored]
    smallest = min(sized, key=_stored, default=best)
    if _stored(smallest) < _stored(best):
        what = f"{smallest.label}, with {quality(smallest.quality, digits)} and {_size(smallest)}"
        return [f"Smallest within {judgement.margin:g} of it: {what}."]
    return []


def _baselines(ranked: Sequence[MethodRow]) -> list[str]:
    """What is no better than what trains nothing, or the new head alone."""
    said = []
    untrained = next((place for place, row in enumerate(ranked) if row.untrained), len(ranked))
    if below := [row.label for row in ranked[untrained + 1 :] if not row.untrained]:
        said.append(f"No better than {ranked[untrained].label}, which needs no training: {', '.join(below)}.")
    probe = next((place for place, row in enumerate(ranked) if row.method == "head"), len(ranked))
    if below := [row.label for row in ranked[probe + 1 :] if not row.untrained]:
        said.append(f"No better than the head alone ({ranked[probe].label}): {', '.join(below)}.")
    return said


def _stored(row: MethodRow) -> float:
    return row.parameters_stored.mean if row.parameters_stored else math.inf


def _size(row: MethodRow) -> str:
    if not row.parameters_stored or not row.parameters_stored.mean:
        return "nothing to store"
    size = f"{count(row.parameters_stored.mean)} stored parameters"
    return f"{size} ({size_in_bytes(row.bytes_stored.mean)})" if row.bytes_stored else size


# Warnings -------------------------------------------------------------------------------------------------------


def warnings(comparison: Comparison) -> list[str]:
    """Why this is less of a comparison than it looks: what stands above the answer."""
    header = comparison.header
    said = [*_missing(comparison), *_few(comparison)]
    steps = max((run.steps or 0 for run in comparison.reported), default=0)
    seen = steps * header.batch_size / max(1, header.train_rows - header.choose_rows)
    if 0 < seen < 1:
        said.append(f"Less than one epoch: each run has seen {seen:.0%} of the training rows.")
    trained = dict.fromkeys(run.label for run in comparison.reported if not run.untrained)
    if rising := list(dict.fromkeys(run.label for run in comparison.reported if _still_rising(run))):
        which = ", ".join(rising) if len(rising) < MANY else f"{len(rising)} of {len(trained)} candidates"
        said.append(f"Still improving when the training ended, so that more steps may change the order: {which}.")
    if header.effort == "none":
        said.append("No rate was searched: every method was trained with its usual one.")
    open_ended, diverged = [], []
    for label in header.centres:
        tried = comparison.tried(label, "screen")
        if len(tried) > 1 and search.best(tried) is not None and not search.settled(tried):
            open_ended.append(label)
        killed = {run.rate for run in comparison.runs if run.label == label and run.again}
        if sum(score is None and rate not in killed for rate, score in tried.items()) > DIVERGED * len(tried):
            diverged.append(label)
    if open_ended:
        edge = "The best rate lies at the edge of what was tried, so that there may be a better one"
        said.append(f"{edge}: {', '.join(open_ended)}.")
    if diverged:
        said.append(f"More than a third of the rates diverged: {', '.join(diverged)}.")
    if len(header.seeds) == 1:
        said.append("One seed: how far another one would move the scores is not known.")
    elif len(header.seeds) == 2:
        said.append("Two seeds: the spread over seeds is a guess.")
    return said


def _missing(comparison: Comparison) -> list[str]:
    """What of the plan has not been run, or was not kept."""
    header, runs, said = comparison.header, comparison.runs, []
    if header.finished == 0:
        said.append(f"Not finished: {len(runs)} trials so far. Start it again to continue.")
    elif header.finished and len(runs) < header.finished:
        said.append(f"{header.finished - len(runs)} of {header.finished} lines of results are missing.")
    if killed := sum(run.again for run in runs):
        trials = "trial was" if killed == 1 else "trials were"
        said.append(f"{killed} {trials} ended from outside, as where memory runs out: start it again to repeat them.")
    judgement = judge(comparison)
    if judgement and len(judgement.seeds) < len(header.seeds):
        done = Counter(run.label for run in comparison.scored)
        short = [label for label in judgement.labels if done[label] < len(header.seeds)]
        which = f"{len(judgement.seeds)} of {len(header.seeds)} seeds, as the others are missing of {', '.join(short)}"
        said.append(f"All are judged by {which}.")
    return said


def _few(comparison: Comparison) -> list[str]:
    """Whether the reported rows are few, or not new."""
    header, said, judgement = comparison.header, [], judge(comparison)
    if header.copies:
        said.append(f"{header.copies:,} of {header.eval_rows:,} reported rows have an input that is trained on.")
    if judgement:
        score = judgement.scores[judgement.best]
        if (half := (score.high - score.low) / 2) > WIDE * judgement.margin:
            many = f"{judgement.rows:,} row{'s' * (judgement.rows != 1)}"
            said.append(f"Few reported rows: by {many} the best score is known to ±{half:.2g}.")
    return said


def _still_rising(run: Run) -> bool:
    """Whether the best point of the curve is its last, and the last quarter has gained over 2 % of the loss."""
    losses = run.eval_losses
    if len(losses) < 4:
        return False
    before = losses[-1 - max(1, len(losses) // 4)]
    return losses[-1] == min(losses) and before - losses[-1] > 0.02 * abs(before)
