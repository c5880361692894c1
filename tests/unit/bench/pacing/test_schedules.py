"""The best possible schedule against brute force, and what every schedule must hold."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_bench.pacing.schedules import (
    at_once,
    best_possible,
    buffered,
    fixed_pace,
    largest_gap_s,
    least_gap_s,
)

ARRIVALS = st.lists(st.floats(0, 3), min_size=1, max_size=40).map(sorted)


@pytest.mark.slow
@settings(derandomize=True, deadline=None)
@given(
    later=st.lists(st.integers(0, 8), max_size=4).map(sorted),
    pace=st.integers(0, 3),
)
def test_no_schedule_on_a_grid_has_a_smaller_largest_gap(later: list[int], pace: int) -> None:
    arrived = [0, *later]
    best = least_gap_s(arrived, pace)
    for gaps in itertools.product(range(pace, 12), repeat=len(later)):
        shown = list(itertools.accumulate(gaps, initial=0))
        if all(show >= arrive for show, arrive in zip(shown, arrived, strict=True)):
            assert max(gaps, default=pace) >= best - 1e-9


@settings(derandomize=True, deadline=None)
@given(arrived=ARRIVALS, pace_s=st.floats(0.01, 0.5))
def test_the_best_possible_reaches_the_least_gap(arrived: list[float], pace_s: float) -> None:
    shown = best_possible(arrived, pace_s)
    assert shown[0] == arrived[0]
    assert all(s >= a - 1e-9 for s, a in zip(shown, arrived, strict=True))
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert all(pace_s - 1e-9 <= gap <= least_gap_s(arrived, pace_s) + 1e-9 for gap in gaps)


@settings(derandomize=True, deadline=None)
@given(arrived=ARRIVALS, pace_s=st.floats(0.01, 0.5), num_tokens=st.integers(1, 50))
def test_naive_schedules_show_nothing_early(
    arrived: list[float], pace_s: float, num_tokens: int
) -> None:
    for shown in (
        at_once(arrived),
        fixed_pace(arrived, pace_s),
        buffered(arrived, pace_s, num_tokens),
    ):
        assert len(shown) == len(arrived)
        assert all(s >= a for s, a in zip(shown, arrived, strict=True))
    slow = fixed_pace(arrived, pace_s)
    assert all(b - a >= pace_s - 1e-9 for a, b in itertools.pairwise(slow))


def test_a_buffer_begins_when_it_is_full() -> None:
    assert buffered([0.0, 0.1, 0.9, 1.0], 0.2, 3) == pytest.approx([0.9, 1.1, 1.3, 1.5])
    assert buffered([0.0, 0.1], 0.2, 9) == pytest.approx([0.1, 0.3])


def test_one_token_has_no_gap() -> None:
    assert largest_gap_s([1.0]) == 0.0
    assert least_gap_s([1.0], 0.2) == 0.2
    assert best_possible([], 0.2) == buffered([], 0.2, 1) == []
