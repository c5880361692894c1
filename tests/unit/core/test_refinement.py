"""Which positions of a prompt are kept, and which refined prompts are of no use."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import ProtocolError
from pd_core.refinement import (
    FIRST_TOKENS,
    LAST_TOKENS,
    MOST_CHUNKS,
    Ranges,
    check_kept,
    chosen_ranges,
    num_positions,
)

numbers = st.floats(min_value=0.0, max_value=1.0) | st.sampled_from([math.nan, math.inf, -1.0])
some_ranges = st.lists(
    st.tuples(st.integers(-5, 700), st.integers(-5, 700)).map(lambda pair: tuple(sorted(pair))),
    max_size=5,
).map(tuple)


def positions(ranges: Ranges) -> set[int]:
    return {i for first, end in ranges for i in range(first, end)}


@given(st.lists(numbers, max_size=600), st.floats(0.01, 1.0), some_ranges)
def test_enough_is_kept_in_rising_ranges(
    scores: list[float], keep_ratio: float, protected: Ranges
) -> None:
    n = len(scores)
    ranges = chosen_ranges(scores, keep_ratio, protected)
    kept = positions(ranges)
    assert all(0 <= first < end <= n for first, end in ranges)
    assert all(a[1] < b[0] for a, b in pairwise(ranges))
    assert num_positions(ranges) == len(kept) >= math.ceil(keep_ratio * n)
    must = {*range(min(FIRST_TOKENS, n)), *range(max(n - LAST_TOKENS, 0), n)}
    must |= {i for i in positions(protected) if 0 <= i < n}
    assert must <= kept
    # Beside what must be kept, no more than asked for and one chunk.
    assert len(kept) <= max(math.ceil(keep_ratio * n), len(must)) + 32
    if n:
        inside = tuple((max(a, 0), min(b, n)) for a, b in protected if max(a, 0) < min(b, n))
        check_kept(ranges, n, inside)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=600))
def test_a_ratio_of_one_keeps_the_whole_prompt(scores: list[float]) -> None:
    assert chosen_ranges(scores, 1.0) == ((0, len(scores)),)


def test_what_scores_high_is_kept_with_its_neighbours() -> None:
    scores = np.full(1000, 1e-6)
    scores[500] = 1.0
    kept = positions(chosen_ranges(scores, 0.1))
    assert set(range(494, 507)) <= kept
    assert len(kept) < 140


def test_only_the_order_of_scores_counts() -> None:
    scores = np.random.default_rng(3).random(777)
    assert chosen_ranges(scores, 0.4) == chosen_ranges(scores * 8, 0.4)
    assert chosen_ranges(list(scores), 0.4) == chosen_ranges(scores, 0.4)


def test_the_ranges_of_a_long_prompt_are_bounded() -> None:
    scores = np.random.default_rng(1).random(200_000)
    ranges = chosen_ranges(scores, 0.5)
    assert len(ranges) <= MOST_CHUNKS // 2 + 2
    assert num_positions(ranges) >= 100_000


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ((), "must be kept"),
        (((0, 5),), "must be kept"),  # not the last
        (((0, 5), (5, 11)), "within the prompt's 10"),
        (((-1, 10),), "within the prompt's 10"),
        (((5, 5), (6, 10)), "within the prompt's 10"),
        (((6, 5), (6, 10)), "within the prompt's 10"),
        (((5, 8), (0, 3), (9, 10)), "begins before the end"),
        (((0, 8), (7, 10)), "begins before the end"),
        (((0, 3), (7, 10)), "must be kept"),  # 4 is protected
    ],
)
def test_what_cannot_be_used_is_refused(ranges: Ranges, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        check_kept(ranges, 10, ((4, 5),))


def test_ranges_that_touch_can_be_used() -> None:
    check_kept(((0, 3), (3, 5), (9, 10)), 10, ((4, 5),))
