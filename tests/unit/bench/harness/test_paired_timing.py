"""Timing in turns, under a clock that only the steps move."""

import pytest

from pd_bench.harness.paired_timing import (
    WARM_UP_ROUNDS,
    PairedTiming,
    median_interval,
    time_paired,
)


@pytest.mark.parametrize(
    ("num_values", "k"),
    # From a table of the sign test: for n values, the k-th from either end at 95 %.
    [(2, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (30, 10), (60, 22), (100, 40)],
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(num_values: int, k: int) -> None:
    values = [float((7 * i) % num_values) for i in range(num_values)]
    if num_values % 7 == 0:
        pytest.fail("choose a number that 7 does not divide")
    assert median_interval(values) == (k - 1, num_values - k)


def test_rounds_take_turns_and_the_first_ones_do_not_count() -> None:
    now, order, rounds = 0.0, [], 0
    # Seconds of each round, the warm-up included: a burst of other work triples a whole round.
    burst = [9.0] * WARM_UP_ROUNDS + [1.0, 3.0, 1.0, 1.0]

    def step(name: str, seconds: float) -> None:
        nonlocal now
        order.append(name)
        now += seconds * burst[rounds]

    def after_round() -> None:
        nonlocal now, rounds
        now += 100.0  # what happens between rounds is not timed
        rounds += 1

    timing = time_paired(
        [lambda: step("a", 2.0), lambda: step("A", 1.0)],
        [lambda: step("b", 3.0), lambda: step("B", 1.0)],
        context_tokens=77,
        num_rounds=4,
        now_s=lambda: now,
        after_round=after_round,
    )
    assert "".join(order) == "abBAbaAB" * 3
    assert rounds == 4 + WARM_UP_ROUNDS
    assert timing == PairedTiming(
        context_tokens=77,
        num_rounds=4,
        variant_s=3.0,
        plain_s=4.0,
        ratio=0.75,
        ratio_low=0.75,
        ratio_high=0.75,
    )
