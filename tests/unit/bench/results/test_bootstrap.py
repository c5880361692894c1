"""Intervals and the rank test, against known values and by their coverage."""

import itertools

import numpy as np
import pytest

from pd_bench.results.bootstrap import Values, bootstrap_pair, rows_to_tell, sign_p, signed_rank_p
from pd_bench.results.headlines import MEASURES, headlines, paired_values
from tests.result_documents import document, full_document, record


def median(values: Values) -> Values:
    return np.asarray(np.median(values, axis=-1))


def ratio(first: Values, second: Values) -> Values:
    return np.asarray(first / second)


def test_equal_ratios_have_an_interval_of_no_width() -> None:
    second = np.arange(1.0, 41.0)
    interval = bootstrap_pair(second * 0.25, second, median, ratio)
    assert interval is not None
    # Paired: what is drawn for the one is drawn for the other.
    assert (interval.value, interval.low, interval.high) == (0.25, 0.25, 0.25)
    assert interval.num_rows == 40


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(4)
    hits = 0
    for seed in range(100):
        second = numbers.lognormal(0.0, 0.5, 60)
        first = second * numbers.lognormal(np.log(0.5), 0.3, 60)
        interval = bootstrap_pair(
            np.log(first), np.log(second), lambda v: np.asarray(v.mean(axis=-1)), np.subtract, seed
        )
        assert interval is not None
        hits += interval.low <= np.log(0.5) <= interval.high
    assert 86 <= hits <= 100  # 95 expected


def test_nothing_is_said_of_one_row_or_of_a_division_by_zero() -> None:
    one = np.array([1.0])
    assert bootstrap_pair(one, one, median, ratio) is None
    with np.errstate(divide="ignore", invalid="ignore"):
        assert bootstrap_pair(np.ones(5), np.zeros(5), median, ratio) is None


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # By hand: z = (|W - n(n+1)/4| - 1/2) / sqrt(n(n+1)(2n+1)/24), p = 2 (1 - Phi(z)).
        (list(range(1, 61)), 1.671e-11),  # W 1830, mean 915, variance 18452.5: z 6.7323
        # Ties: sixty ranks of 30.5 and a variance of 18452.5 - (216000 - 60) / 48 = 13953.75.
        ([1.0] * 60, 9.807e-15),
        # Exact: of all signs one choice is as far up, and one as far down.
        (list(range(1, 21)), 2 / 2**20),
        ([1.0] * 9, 2 / 2**9),
        ([0.0] * 30, 1.0),
    ],
)
def test_the_rank_test_agrees_with_known_values(differences: list[float], p: float) -> None:
    assert signed_rank_p(np.array(differences, dtype=np.float64)) == pytest.approx(p, rel=1e-3)


def test_few_rows_are_judged_as_by_trying_all_signs() -> None:
    numbers = np.random.default_rng(3)
    for n in (1, 2, 5, 9, 11):
        values = np.round(numbers.normal(0.4, 1, n), 1)  # ties, and some zeros
        kept = values[values != 0]
        order = np.abs(kept)
        ranks = [(order < x).sum() + ((order == x).sum() + 1) / 2 for x in order]
        found = sum(r for r, v in zip(ranks, kept, strict=True) if v > 0)
        sums = [
            sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
            for signs in itertools.product((False, True), repeat=len(ranks))
        ]
        tail = min(sum(s <= found for s in sums), sum(s >= found for s in sums)) / len(sums)
        assert signed_rank_p(values) == pytest.approx(min(2 * tail, 1.0))


def test_so_many_rows_are_needed_to_tell() -> None:
    for level in (0.05, 0.002, 1e-4):
        needed = rows_to_tell(level)
        assert signed_rank_p(np.arange(1.0, needed + 1)) <= level
        assert signed_rank_p(np.arange(1.0, needed)) > level


def test_the_rank_test_is_two_sided_and_finds_no_difference_in_noise() -> None:
    numbers = np.random.default_rng(9)
    noise = [signed_rank_p(numbers.normal(0, 1, 50)) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(noise) < 0.05) <= 0.11
    shifted = numbers.normal(0.8, 1, 50)
    assert signed_rank_p(shifted) == pytest.approx(signed_rank_p(-shifted))
    assert signed_rank_p(shifted) < 1e-3


def test_headlines_are_the_ratios_of_hand_made_rows() -> None:
    found = {(h.measure, h.scheme, h.against): h.ratio for h in headlines(full_document())}
    assert found["TTFT p50", "pd-device", "device-only"].value == pytest.approx(0.1)
    assert found["TTFT p50", "pd-device", "cloud-only"].value == pytest.approx(1.0)
    assert found["cloud tokens generated", "pd-device", "cloud-only"].value == pytest.approx(1 / 3)
    assert all(scheme == "pd-device" for _, scheme, _ in found)


def test_rows_are_paired_and_failed_ones_left_out() -> None:
    ours = [
        record(0, "a", ttft_s=1.0),
        record(0, "a", ttft_s=3.0, repeat=1),
        record(1, "a", ttft_s=5.0),
        record(1, "a", ttft_s=5.0, repeat=1, error="QueueFull: full"),
        record(2, "a", ttft_s=7.0),
    ]
    theirs = [record(2, "b", ttft_s=70.0), record(0, "b", ttft_s=10.0), record(3, "b")]
    first, second = paired_values(ours, theirs, MEASURES["TTFT p50"])
    assert first.tolist() == [2.0, 7.0]
    assert second.tolist() == [10.0, 70.0]


def test_a_document_without_a_reference_has_no_headlines() -> None:
    assert headlines(document([record(i, "pd-device") for i in range(9)])) == []


def test_the_sign_test_is_exact() -> None:
    assert sign_p(0, 0) == 1.0
    assert sign_p(0, 10) == pytest.approx(2 / 1024)
    assert sign_p(1, 9) == sign_p(9, 1) == pytest.approx(2 * 11 / 1024)
    assert sign_p(5, 5) == 1.0
    assert sign_p(900, 1100) == pytest.approx(8.5e-6, rel=0.05)  # beyond what a float's 2**n holds
