"""A profile is fitted to timed passes, whatever else the machine did meanwhile."""

import random

import pytest

from pd_device_client.planning.speeds.fit_table import decode_rows, prefill_rows
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.speeds.speed_fit import PassTime, fit_speeds

TRUE = SpeedProfile("t", "a test", 1e-3, 0.02, 5e-3, 2e-7, decode_l_s=1e-6)


def _passes(profile: SpeedProfile, rounds: int = 5, spread: float = 0.0) -> list[PassTime]:
    rng = random.Random(4)
    passes = []
    for _ in range(rounds):
        for first in range(0, 4096, 64):
            passes.append(PassTime(first, 64, profile.pass_s(first, 64)))
            if first % 1024 == 960:
                passes.append(PassTime(first + 64, 1, profile.pass_s(first + 64, 1)))
    return [
        PassTime(p.first_position, p.num_tokens, p.seconds * rng.lognormvariate(0, spread))
        for p in passes
    ]


def _speeds(profile: SpeedProfile) -> tuple[float, ...]:
    return profile.prefill_s(64), profile.prefill_s(4096), profile.pass_s(2048, 1)


def test_passes_without_noise_are_fitted_exactly() -> None:
    fit = fit_speeds(_passes(TRUE), "f", "a test")
    found = fit.profile
    assert found.prefill_a_s == pytest.approx(TRUE.prefill_a_s)
    assert found.prefill_b_s == pytest.approx(TRUE.prefill_b_s)
    assert found.prefill_c_s == pytest.approx(TRUE.prefill_c_s)
    assert found.decode_s == pytest.approx(TRUE.decode_s)
    assert found.decode_l_s == pytest.approx(TRUE.decode_l_s)
    assert fit.num_outliers == 0


def test_a_third_of_disturbed_passes_counts_little() -> None:
    rng = random.Random(5)
    passes = [
        PassTime(p.first_position, p.num_tokens, p.seconds * rng.uniform(2, 20))
        if rng.random() < 0.33
        else p
        for p in _passes(TRUE, rounds=8, spread=0.03)
    ]
    fit = fit_speeds(passes, "f", "a test")
    assert _speeds(fit.profile) == pytest.approx(_speeds(TRUE), rel=0.1)
    assert fit.num_outliers > len(passes) / 5
    assert 0.01 < fit.prefill_spread < 0.1


def test_no_coefficient_is_negative() -> None:
    """Passes that get faster with their position: a machine that warms up."""
    passes = [PassTime(i * 64, 64, 0.1 - i * 0.001) for i in range(30)]
    passes += [PassTime(64 * i, 1, 0.03 - i * 0.0005) for i in range(30)]
    profile = fit_speeds(passes, "f", "a test").profile
    assert min(profile.prefill_a_s, profile.prefill_c_s, profile.decode_l_s) >= 0
    assert min(profile.prefill_b_s, profile.decode_s) > 0


def test_short_passes_that_cost_a_decode_step_do_not_bend_the_fit() -> None:
    short = [PassTime(0, n, max(TRUE.pass_s(0, n), TRUE.decode_s)) for n in (2, 4, 8, 12) * 5]
    fit = fit_speeds([*_passes(TRUE), *short], "f", "a test")
    assert _speeds(fit.profile) == pytest.approx(_speeds(TRUE), rel=1e-3)


def test_a_table_shows_whole_prompts_and_single_steps() -> None:
    passes = [
        *(PassTime(0, 10, 0.1), PassTime(10, 10, 0.2), PassTime(20, 1, 0.01)),
        *(PassTime(0, 10, 0.3), PassTime(10, 10, 0.2), PassTime(20, 1, 0.03)),
        PassTime(21, 1, 0.02),
    ]
    profile = SpeedProfile("p", "a test", 0.01, 0.04)
    first, second = prefill_rows(passes, profile)
    assert (first.num_tokens, second.num_tokens) == (10, 20)
    assert (second.least_s, second.most_s) == pytest.approx((0.3, 0.5))
    assert (second.measured_s, second.fitted_s) == pytest.approx((0.4, 0.2))
    assert second.error == pytest.approx(-0.5)
    (step,) = decode_rows(passes, profile)
    assert (step.num_tokens, step.measured_s, step.fitted_s) == (20, 0.02, 0.04)
