"""The verdict on made-up results whose truth is known, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from graftune.comparison import statistics
from graftune.comparison.statistics import Draws, Scored, chances, needed, verdicts

MARGIN = 0.02


def made(random, truths, seeds, rows, spread, agreement=0.7):
    """Right or wrong answers of candidates that are right with these probabilities.

    Each seed moves a candidate's probability by a normal step of size `spread`; `agreement` is the share of rows on
    which all candidates and seeds have the same luck.
    """
    shared = random.random((1, rows))
    found = []
    for truth in truths:
        own = random.random((seeds, rows))
        luck = np.where(random.random((seeds, rows)) < agreement, shared, own)
        chance = truth + spread * random.standard_normal((seeds, 1))
        right = (luck < chance).astype(float)
        found.append(Scored(np.stack([right, np.ones_like(right)], -1), "mean"))
    return found


def said(random, truths, *shape, draws=400):
    """What is said of the better of two candidates, which it is, and the smallest difference that could be seen."""
    candidates = made(random, truths, *shape)
    best = int(np.argmax([one.metric().mean() for one in candidates]))
    found = {str(n): d for n, d in enumerate(Draws.of(candidates, draws).differences(MARGIN, best)) if d is not None}
    (one,) = found.values()
    return verdicts(found, MARGIN)[str(1 - best)], best, one.detectable


SLOW = pytest.mark.slow
SHAPES = [
    (3, 300, 0.02),
    *(pytest.param(shape, marks=SLOW) for shape in ((3, 300, 0.0), (3, 2000, 0.01), (5, 1000, 0.0), (5, 1000, 0.02))),
    pytest.param((10, 500, 0.01), marks=SLOW),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_better_is_rarely_said_of_equals(shape):
    """At most 2.5 % of 1,000 experiments, give or take two standard errors of that count."""
    random = np.random.default_rng(1)
    wrong = np.mean([said(random, (0.7, 0.7), *shape)[0] == "better" for _ in range(1000)])
    assert wrong <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 1000)


@pytest.mark.parametrize(("rows", "truth"), [(3, 0.5), (10, 0.5), (20, 0.5), (30, 0.95)])
def test_nor_with_few_rows_and_one_seed(rows, truth):
    random = np.random.default_rng(6)
    found = [said(random, (truth, truth), 1, rows, 0.0, 0.0)[0] for _ in range(300)]
    assert np.mean([verdict == "better" for verdict in found]) <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 300)
    assert "equal" not in found  # a single answer is more than the margin


@pytest.mark.parametrize(("rows", "verdict"), [(3, "open"), (30, "open"), (2000, "equal")])
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_alike_is_equal_only_where_one_row_is_less_than_the_margin(rows, verdict, right):
    answers = (np.arange(rows) < right * rows).astype(float)
    one = Scored(np.stack([answers, np.ones(rows)], -1)[None], "mean")
    draws = Draws.of([one, one, one], 2000)
    (_, first, second) = draws.differences(MARGIN, 0)
    assert verdicts({"first": first, "second": second}, MARGIN) == {"first": verdict, "second": verdict}
    assert chances(draws.both) == pytest.approx(np.full(3, 1 / 3), abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 4000, 0.0), (5, 3000, 0.005), (10, 2000, 0.01), (5, 8000, 0.01)])
def test_twice_the_margin_is_seen_where_it_is_said_to_be(shape):
    random = np.random.default_rng(2)
    found = [said(random, (0.7, 0.7 + 2 * MARGIN), *shape) for _ in range(300)]
    promised = [verdict == "better" and best == 1 for verdict, best, detectable in found if detectable <= 2 * MARGIN]
    assert len(promised) > 100
    assert np.mean(promised) >= 0.8
    assert not any(verdict == "better" and best == 0 for verdict, best, _ in found)


def test_without_a_spread_of_seeds_the_error_is_that_of_paired_rows():
    random = np.random.default_rng(3)
    first, second = made(random, (0.6, 0.7), 1, 2000, 0.0)
    (one, none) = Draws.of([first, second]).differences(MARGIN, 1)
    assert none is None
    each = (second.figures - first.figures)[0, :, 0]
    assert one.mean == pytest.approx(each.mean())
    assert one.error == pytest.approx(each.std() / np.sqrt(2000), rel=0.05)
    exact = stats.norm(each.mean(), each.std() / np.sqrt(2000))
    assert (one.low, one.high) == pytest.approx(exact.ppf([0.025, 0.975]), abs=0.003)


def test_seeds_alone_give_students_interval():
    """Rows without noise: only the seeds differ."""
    steps = np.array([0.01, 0.03, 0.02, 0.05, 0.04])
    figures = [np.repeat(values[:, None, None], 20_000, 1) for values in (0.5 + 0 * steps, 0.5 + steps)]
    first, second = (Scored(np.concatenate([f, np.ones_like(f)], -1), "mean") for f in figures)
    (one, _) = Draws.of([first, second], 2000).differences(MARGIN, 1)
    exact = stats.t(4, steps.mean(), steps.std(ddof=1) / np.sqrt(5))
    assert one.freedom == pytest.approx(4, rel=1e-3)
    assert one.error == pytest.approx(steps.std(ddof=1) / np.sqrt(5), rel=1e-3)
    assert (one.low, one.high) == pytest.approx(exact.ppf([0.025, 0.975]), abs=0.006)


@pytest.mark.slow
def test_equals_are_called_equal_with_enough_rows_and_seeds():
    random = np.random.default_rng(4)
    verdict = [said(random, (0.7, 0.7), 5, 20_000, 0.001)[0] for _ in range(20)]
    assert verdict.count("equal") >= 18


def test_many_comparisons_are_corrected_as_holm_does():
    def one(above):
        return statistics.Difference(0.1, 0.0, 0.2, above, 0.0, 0.03, 0.0, 0.0009, np.inf)

    found = {"a": one(0.9999), "b": one(0.9850), "c": one(0.9950)}
    assert verdicts(found, MARGIN) == {"a": "better", "c": "better", "b": "open"}  # 1/3, 1/2 and all of 0.0125
    assert verdicts({"c": one(0.9950)}, MARGIN) == {"c": "better"}
    assert verdicts({"c": one(0.9950)}, 0.2) == {"c": "open"}
    assert verdicts({"a": one(0.9950), "b": one(0.9900)}, MARGIN) == {"a": "better", "b": "better"}


def test_the_chance_of_being_best_adds_up():
    random = np.random.default_rng(5)
    draws = Draws.of(made(random, (0.5, 0.52, 0.8), 3, 500, 0.01), 2000).both
    found = chances(draws)
    assert found.sum() == pytest.approx(1)
    assert found[2] > 0.99


def test_lower_may_be_better():
    errors = np.ones((2, 10, 2))
    worse = Scored(errors * [2, 1], "mean", sign=-1)
    better = Scored(errors * [1, 1], "mean", sign=-1)
    (one, _) = Draws.of([worse, better], 100).differences(0.1, 1)
    assert one.mean == pytest.approx(1)


def test_what_would_settle_it():
    """Twice the margin is seen where its error is 2 m / (2.24 + 0.84)."""
    one = statistics.Difference(0.01, -0.05, 0.07, 0.7, 0.3, 0.0, of_seeds=0.0001, of_rows=0.0003, freedom=10)
    seeds, rows = needed(one, MARGIN, 3, 500)
    wanted = (0.04 / (stats.norm.ppf(0.9875) + stats.norm.ppf(0.8))) ** 2
    assert seeds is None  # the rows alone are too few
    assert 0.0001 + 0.0003 * 500 / rows <= wanted < 0.0001 + 0.0003 * 500 / (rows - 1)
