"""The plan: one set of trials, however they are shared out, killed and resumed."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftune.comparison.plan import EFFORTS, Finished, Plan, Trial

CENTRES = {"head": 3e-3, "few-shot": None, "lora": 1e-3, "lora(rank=64)": 1e-3, "full": 5e-5}


def plan(effort="normal", **options) -> Plan:
    return Plan(CENTRES, seeds=(1, 2, 3), tuning=0, effort=EFFORTS[effort], probe="head", **options)


def scored(trial: Trial) -> Finished:
    """Each candidate has a best rate of its own; some trials fail."""
    if trial.rate is None:
        return Finished(trial, 0.1)
    away = abs(math.log10(trial.rate / CENTRES[trial.label]) - (zlib.crc32(trial.label.encode()) % 7 - 3) / 3)
    luck = random.Random(repr(trial)).random()
    return Finished(trial, None if luck < 0.05 and trial.stage == "screen" else 1 - away / 5)


def run(plan: Plan, workers: int, finished=(), order: int = 0) -> list[Finished]:
    """Workers that take whatever is ready, and come back in any order."""
    done, running, chance = list(finished), [], random.Random(order)
    while True:
        ready = [trial for trial in plan.ready(done) if trial not in running]
        running += ready[: workers - len(running)]
        if not running:
            return done
        done.append(scored(running.pop(chance.randrange(len(running)))))


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("workers", [2, 3, 50])
def test_many_workers_run_the_same_trials_as_one(effort, workers):
    alone = {one.trial for one in run(plan(effort), 1)}
    assert {one.trial for one in run(plan(effort), workers, order=workers)} == alone


@given(st.integers(0, 60), st.sampled_from(sorted(EFFORTS)))
def test_killed_anywhere_and_resumed_it_is_the_same_comparison(moment, effort):
    whole = run(plan(effort), 1)
    kept = whole[:moment]
    random.Random(moment).shuffle(kept)  # lines are a set
    assert {one.trial for one in run(plan(effort), 2, kept)} == {one.trial for one in whole}


def test_every_candidate_is_reported_with_fresh_seeds_at_one_rate():
    done = run(plan(), 1)
    for label in CENTRES:
        reported = [one.trial for one in done if one.trial.label == label and one.trial.stage == "report"]
        assert [trial.seed for trial in reported] == [1, 2, 3]
        assert len({trial.rate for trial in reported}) == 1
        assert all(trial.share == 1 for trial in reported)
    assert all(one.trial.seed == 0 for one in done if one.trial.stage != "report")


def test_the_head_is_searched_first_and_its_rate_is_everybodys():
    done = run(plan(), 4)
    found = plan().point("head", done).rate
    first = next(place for place, one in enumerate(done) if one.trial.label != "head")
    assert plan().point("head", done[:first]).rate == found
    assert {one.trial.head for one in done if one.trial.label != "head"} == {found}
    assert {one.trial.head for one in done if one.trial.label == "head"} == {None}


def test_trials_beside_another_head_are_run_again():
    """As where the head's rate changes, because trials that had been killed are repeated."""
    done = run(plan(), 1)
    found = plan().point("head", done).rate
    stale = [
        one if one.trial.label == "head" else replace(one, trial=replace(one.trial, head=found * 2))
        for one in done
        if (one.trial.label, one.trial.stage) != ("head", "report")
    ]
    stale.append(Finished(Trial("report", "head", 1, found * 2), 0.5))
    again = run(plan(), 1, stale)[len(stale) :]
    assert {one.trial for one in again} == {
        one.trial for one in done if one.trial.label != "head" or one.trial.stage == "report"
    }


@pytest.mark.parametrize(
    ("effort", "most"), [("quick", 5 / 4 + 3), ("normal", 7 / 4 + 2 + 3), ("thorough", 8 / 4 + 2 + 3)]
)
def test_all_candidates_have_the_same_ceiling(effort, most):
    done = run(plan(effort), 1)
    for label in CENTRES:
        assert sum(one.trial.share for one in done if one.trial.label == label) <= most


def test_a_known_rate_is_not_searched():
    done = run(plan(known={"lora": 7e-4, "head": 1e-2}), 1)
    assert {one.trial.stage for one in done if one.trial.label in ("lora", "head")} == {"report"}
    assert {one.trial.rate for one in done if one.trial.label == "lora"} == {7e-4}
    assert {one.trial.head for one in done if one.trial.label == "full"} == {1e-2}


def test_a_candidate_whose_rates_all_fail_is_given_up_and_the_others_go_on():
    one = Plan({"bad": 1e-3, "good": 1e-3}, seeds=(1,), tuning=0)
    done: list[Finished] = []
    while ready := one.ready(done):
        done.append(Finished(ready[0], None if ready[0].label == "bad" else -abs(math.log(ready[0].rate / 1e-3))))
    assert {(d.trial.label, d.trial.stage) for d in done} == {
        ("bad", "screen"), ("good", "screen"), ("good", "confirm"), ("good", "report"),
    }  # fmt: skip


def test_where_even_the_head_fails_the_others_are_tried_with_their_own_rate():
    one = Plan({"head": 1e-3, "lora": 1e-3}, seeds=(1,), tuning=0, probe="head")
    done = [Finished(trial, None) for trial in one.ready([])]
    assert {trial.label for trial in one.ready(done)} == {"lora"}
    assert {trial.head for trial in one.ready(done)} == {None}
