"""Quantiles are numpy's, whether the values are listed or counted."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_bench.results.quantiles import counted_quantiles, quantiles

SHARES = (0.0, 0.25, 0.5, 0.9, 0.99, 1.0)


def test_they_lie_on_straight_lines_between_neighbours() -> None:
    assert quantiles([4.0, 0.0, 1.0, 2.0], (0.0, 0.5, 0.9, 1.0)).tolist() == [
        0.0,
        1.5,
        3.4000000000000004,
        4.0,
    ]
    assert quantiles([7.0], (0.1, 0.9)).tolist() == [7.0, 7.0]


def test_the_last_axis_is_reduced() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert quantiles(values, 0.5).tolist() == [1.5, 5.5, 9.5]
    assert quantiles(values, (0.5, 1.0)).shape == (2, 3)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_counts_give_what_the_list_of_all_values_gives(values: list[int]) -> None:
    counted = counted_quantiles(Counter(values), SHARES)
    assert counted == pytest.approx(quantiles(values, SHARES).tolist(), rel=1e-12)
