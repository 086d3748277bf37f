"""Batches: every row once an epoch, and any step a pure function of seed and step."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from graftune.training.batching import STARTING, Batches, micro_batches, padded

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=60)


rows = st.integers(1, 60)


@given(rows, st.integers(1, 9), st.integers(0, 99))
def test_an_epoch_visits_every_row_once(rows, size, seed):
    batches = Batches(rows, size, seed)
    for epoch in range(3):
        steps = [batches[epoch * batches.per_epoch + k] for k in range(batches.per_epoch)]
        assert sorted(row for step in steps for row in step) == list(range(rows))
        assert all(len(step) == size for step in steps[:-1])
        assert 1 <= len(steps[-1]) <= size


@given(rows, st.integers(1, 9), st.integers(0, 99), st.integers(0, 200))
def test_a_step_depends_on_seed_and_step_alone(rows, size, seed, step):
    used = Batches(rows, size, seed)
    used[step + 7], used[0]
    assert used[step] == Batches(rows, size, seed)[step]


def test_epochs_and_seeds_differ():
    batches = Batches(64, 4, 0)
    first, second = ([batches[e * 16 + k] for k in range(16)] for e in (0, 1))
    assert first != second
    assert first != [Batches(64, 4, 1)[k] for k in range(16)]


def test_a_cut_holds_rows_of_similar_lengths():
    lengths = [(37 * i) % 100 + 1 for i in range(20)]
    assert all(lengths[group[0]] - lengths[group[-1]] < 30 for group in micro_batches(lengths, 400))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 120))
def test_no_other_cut_is_cheaper(lengths, tokens):
    """Against every way to cut the sorted rows."""
    ordered = sorted(lengths, reverse=True)

    def cost(groups):
        if any(len(group) > 1 and len(group) * group[0] > tokens for group in groups):
            return float("inf")
        return sum(len(group) * group[0] + STARTING for group in groups)

    ways = []
    for cuts in product([False, True], repeat=len(ordered) - 1):
        groups = [[ordered[0]]]
        for cut, length in zip(cuts, ordered[1:], strict=True):
            groups.append([length]) if cut else groups[-1].append(length)
        ways.append(cost(groups))
    assert cost([[lengths[i] for i in group] for group in micro_batches(lengths, tokens)]) == min(ways)


@given(lengths, st.none() | st.integers(1, 200))
def test_micro_batches_hold_every_row_once_within_their_tokens(lengths, tokens):
    groups = micro_batches(lengths, tokens)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert lengths[group[0]] == max(lengths[i] for i in group), "the first row is the longest"
        assert tokens is None or len(group) == 1 or len(group) * lengths[group[0]] <= tokens
    if tokens is None:
        assert len(groups) == 1


@given(st.integers(1, 40), st.integers(1, 30), st.integers(30, 300))
def test_rows_of_one_length_are_cut_into_as_few_equal_groups_as_can_be(rows, length, tokens):
    groups = micro_batches([length] * rows, tokens)
    assert len(groups) == -(-rows // (tokens // length))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300), st.none() | st.integers(1, 300))
def test_widths_are_few_and_within_the_positions(length, positions):
    width = padded(length, positions)
    assert length <= width < length + 8
    assert width % 8 == 0 or width in (length, positions)
    assert positions is None or width <= max(length, positions)
