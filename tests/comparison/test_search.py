"""The search for a rate: the grid, its edges, ties, and what is said of the result."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftune.comparison.search import (
    MORE,
    POINTS,
    best,
    expected_best,
    grid,
    refinement,
    rounded,
    settled,
    to_confirm,
    to_try,
    window,
)

centres = st.floats(1e-5, 1e-1)


def searched(centre, score):
    tried = {}
    while rates := to_try(centre, tried):
        tried[rates[0]] = score(rates[0])  # one at a time: the plan does not depend on how many run at once
    return tried


def test_the_grid_is_one_three_ten():
    assert grid(1e-3) == [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2]
    assert grid(3e-2, 5.6) == pytest.approx([9.6e-4, 5.4e-3, 3e-2, 0.17, 0.94])
    assert grid(1e-3, points=3) == [3.2e-4, 1e-3, 3.2e-3]


@given(centres, st.floats(-2.4, 2.4))
def test_the_best_of_a_peak_is_found_and_settled(centre, away):
    """A peak within the grid and the one or two rates beyond it: the rate found is the nearest that was tried."""
    top = centre * 10 ** (away / 2)
    tried = searched(centre, lambda rate: -abs(math.log(rate / top)))
    found = best(tried)
    assert abs(math.log(found / top)) <= math.log(10) / 4 + 0.06  # half a step, and the rounding
    assert settled(tried)
    assert POINTS <= len(tried) <= POINTS + MORE


@given(centres, st.sampled_from([1, -1]))
def test_an_edge_is_moved_twice_and_then_said_to_be_open(centre, side):
    tried = searched(centre, lambda rate: side * math.log(rate))
    assert len(tried) == POINTS + MORE
    assert best(tried) == (max if side > 0 else min)(tried)
    assert not settled(tried)


@given(centres, st.integers(0, 2**POINTS - 1))
def test_what_failed_is_worse_than_anything(centre, mask):
    rates = grid(centre)
    tried = {rate: None if mask >> place & 1 else -1e9 * rate for place, rate in enumerate(rates)}
    found = best(tried)
    alive = [rate for rate in rates if tried[rate] is not None]
    assert found == min(alive, default=None)
    assert best({**tried, rates[0]: math.nan}) != rates[0] or alive == []


def test_nothing_more_is_tried_where_all_failed():
    assert to_try(1e-3, dict.fromkeys(grid(1e-3))) == []
    assert to_confirm(dict.fromkeys(grid(1e-3))) == []
    assert not settled(dict.fromkeys(grid(1e-3)))


def test_the_order_in_which_rates_come_back_does_not_matter():
    scores = dict(zip(grid(1e-3), [0.1, 0.2, 0.7, 0.9, 0.95], strict=True))
    expected = to_try(1e-3, scores)
    assert expected == [3.2e-2]
    for order in itertools.permutations(scores):
        assert to_try(1e-3, {rate: scores[rate] for rate in order}) == expected


def test_ties_go_to_the_smaller_rate():
    tried = {1e-4: 0.70, 3.2e-4: 0.795, 1e-3: 0.80, 3.2e-3: 0.801, 1e-2: 0.2}
    assert best(tried) == 3.2e-3
    assert best(tried, 0.005) == 1e-3
    assert best(tried, 0.01) == 3.2e-4
    assert to_confirm(tried, 0.005) == [3.2e-4, 1e-3]


def test_refinement_is_between_the_two_best():
    tried = {1e-3: 0.6, 3.2e-3: 0.8, 1e-2: 0.7}
    assert refinement(tried) == rounded(math.sqrt(3.2e-5)) == 5.7e-3
    assert refinement({**tried, 5.7e-3: 0.9}) is None  # once is enough
    assert refinement({1e-3: 0.8, 3.2e-3: 0.6, 1e-2: 0.7}) is None
    assert refinement({1e-3: 0.6}) is None


def test_the_window_of_usable_rates():
    tried = {1e-4: 0.2, 3.2e-4: 0.75, 1e-3: 0.8, 3.2e-3: 0.74, 1e-2: None}
    assert window(tried) == pytest.approx(1)
    assert window({1e-3: 0.5}) == window({1e-3: None}) == 0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.data())
def test_the_expected_best_is_the_mean_over_all_draws(scores, data):
    trials = data.draw(st.integers(1, len(scores)))
    mean = statistics.fmean(max(draw) for draw in itertools.combinations(scores, trials))
    assert expected_best(scores, trials) == pytest.approx(mean, abs=1e-12)
