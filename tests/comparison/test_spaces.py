"""Searches of several options at once: a function of what was tried, which finds what is better."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison.test_compare import run as compared
from graftune.comparison import spaces
from graftune.comparison.candidates import candidates
from graftune.comparison.plan import EFFORTS, Finished, Plan
from graftune.comparison.points import Point
from graftune.comparison.results import load
from graftune.comparison.spaces import Range, Space
from graftune.config import recipe as recipes
from graftune.errors import GraftuneError
from training.tiny import write

SPACE = Space({"rank": (4, 16, 64), "dropout": Range(0.0, 0.5, whole=False)}, 20, (("dropout", 0.0), ("rank", 4)), 7)
ROWS = [{"table": f"n{number}", "text": f"number {number}"} for number in range(12)]


def plan(**more):
    given = {"effort": EFFORTS["normal"], "spaces": {"lora": SPACE}, **more}
    return Plan({"lora": 1e-3, "bitfit": 1e-3}, [1, 2], 0, **given)


def score(trial):
    """Best at 3e-3, rank 64, without dropout."""
    options = dict(trial.options)
    rank = {4: 0.0, 16: 0.5, 64: 1.0}.get(options.get("rank"), 0.0)
    return rank - (math.log10(trial.rate) + 2.5) ** 2 - options.get("dropout", 0.0)


def carried_out(of, seed, failing=lambda trial: False):
    """All trials of a plan, taken in some order and coming back in another."""
    order, done, running = random.Random(seed), [], []
    while ready := [one for one in of.ready(done) if one not in running] or running:
        running += order.sample(ready, order.randint(1, len(ready))) if ready is not running else []
        one = running.pop(order.randrange(len(running)))
        done.append(Finished(one, None if failing(one) else score(one)))
    return done


def of(done, stage):
    """The searched candidate's trials of a stage."""
    return [one.trial for one in done if (one.trial.label, one.trial.stage) == ("lora", stage)]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_same_trials_in_whatever_order_they_are_run(seed):
    first, second = carried_out(plan(), 0), carried_out(plan(), seed)
    assert sorted(map(repr, first)) == sorted(map(repr, second))


def test_the_grid_comes_first_and_then_as_many_points_as_were_asked_for():
    done = carried_out(plan(), 1)
    screened = of(done, "screen")
    assert len(screened) == 20 == len({(one.rate, one.options) for one in screened})
    grid = [one for one in screened if one.options == SPACE.first]
    assert {one.rate for one in grid} >= {1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2}
    assert len(done) == plan().expected
    assert all(one.trial.options == () for one in done if one.trial.label == "bitfit")


def test_what_is_found_is_better_than_the_grid_alone():
    done = carried_out(plan(), 2)
    reported = {(one.rate, one.options) for one in of(done, "report")}
    ((_, options),) = reported
    assert dict(options)["rank"] == 64
    grid = max(score(one.trial) for one in done if one.trial.options == SPACE.first)
    assert score(next(one.trial for one in done if one.trial.options == options)) > grid + 0.5
    confirmed = of(done, "confirm")
    assert len(confirmed) == 2 and all(one.share == 1 for one in confirmed)


def test_failed_points_do_not_stop_it():
    done = carried_out(plan(), 3, failing=lambda trial: dict(trial.options).get("rank") == 64)
    assert len(done) == plan().expected
    assert {
        dict(one.trial.options)["rank"] for one in done if one.trial.label == "lora" and one.trial.stage == "report"
    } <= {4, 16}


def test_a_space_that_is_smaller_than_asked_for_ends():
    few = Space({"rslora": (False, True)}, 10**6, (("rslora", False),), 0)
    tried: dict[Point, float | None] = {}
    while left := few.to_try(1e-3, tried, 1.01, 1):
        tried |= dict.fromkeys(left, 0.0)
    assert 2 <= len(tried) < 10


def read(given, names=("lora", "lora(rank=64)", "bitfit")):
    return spaces.read(given, candidates(list(names), recipes.load(None, {})), 20, 0)


def test_a_space_is_read():
    found = read(
        {
            "lora.targets": [["q", "v"], "all"],
            "lora.dropout": {"low": 0, "high": 0.2},
            "lora.rank": {"low": 2, "high": 9},
        }
    )
    assert set(found) == {"lora", "lora(rank=64)"}
    space = found["lora(rank=64)"]
    assert space.options["targets"] == (("q", "v"), "all")
    assert space.options["dropout"] == Range(0.0, 0.2, whole=False)
    assert space.options["rank"] == Range(2, 9, whole=True)
    assert dict(space.first) == {"targets": ("q", "v"), "dropout": 0.0, "rank": 9}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loro.rank": [1, 2]}, "did you mean 'lora'"),
        ({"rank": [1, 2]}, "candidate whose options are searched"),
        ({"lora.rnak": [1, 2]}, "did you mean 'rank'"),
        ({"lora.rank": [1]}, "two or more"),
        ({"lora.rank": 4}, "two or more"),
        ({"lora.rank": {"low": 4, "high": 2}}, "two or more"),
        ({"lora.rank": {"low": 4}}, "two or more"),
        ({"lora.rank": ["four", 5]}, "lora.rank"),
        ({"lora.rank": [0, 4]}, "rank"),
        ({"lora.lr": [1e-3, 1e-2]}, "the rate is always searched"),
    ],
)
def test_spaces_that_are_none_are_refused(given, words):
    with pytest.raises(GraftuneError) as caught:
        read(given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": {"lora.rank": [1, 2]}}, "a grid searches rates alone"),
        ({"search": "optuna"}, "nothing to search"),
        ({"search": "optuna", "space": {"lora.rank": [1, 2]}, "known": {"lora": 1e-3}}, "nothing to search"),
        ({"search": "optuna", "space": {"lora.rank": [1, 2]}, "effort": "none"}, "nothing to search"),
    ],
)
def test_a_search_of_nothing_is_refused(toys, tmp_path, options, words):
    train = write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(GraftuneError, match=words):
        compared(toys, tmp_path / "out", ["lora"], **{"effort": "quick", "train": train, **options})


def test_options_reach_the_method_and_the_results(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("graftune.comparison.report.write", lambda folder: [])
    out, given = tmp_path / "out", {"search": "optuna", "space": {"lora.rank": [1, 4]}, "trials": 5, "effort": "quick"}
    given["train"] = write(tmp_path / "train.jsonl", ROWS)
    compared(toys, out, ["lora"], **given)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 5 + 1
    assert {line["options"]["rank"] for line in lines} == {1, 4}
    sizes = {line["options"]["rank"]: line["parameters_trained"] for line in lines}
    assert sizes[4] == 4 * sizes[1]
    compared(toys, out, ["lora"], **given, watch=lambda event: pytest.fail("nothing was left to do"))
    (reported,) = load(out).reported
    assert reported.options == {"rank": lines[-1]["options"]["rank"]}
