"""Intervals and the rank test, against known values and by their coverage."""

import numpy as np
import pytest

from pd_bench.bootstrap import Values, bootstrap_pair, sign_p, signed_rank_p
from pd_bench.headlines import MEASURES, headlines, paired_values
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
        (list(range(1, 21)), 9.569e-05),  # W 210, mean 105, variance 717.5: z 3.9013
        ([1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12], 0.8445),  # W 36 of 39, 162.5: 0.1961
        # Ties: ten ranks of 5.5 and a variance of 96.25 - (1000 - 10) / 48 = 75.625: z 3.1050.
        ([1.0] * 10, 1.9026e-03),
        ([0.0] * 30, 1.0),
        ([1.0] * 9, 1.0),
    ],
)
def test_the_rank_test_agrees_with_known_values(differences: list[float], p: float) -> None:
    assert signed_rank_p(np.array(differences, dtype=np.float64)) == pytest.approx(p, rel=1e-3)


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
