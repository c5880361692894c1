"""A forecast of many passes is guarded by what such forecasts were off by."""

import random

import pytest

from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.forecast_errors import ForecastErrors
from pd_device_client.planning.speeds.profiles import SpeedProfile

CHUNK = 10
PROFILE = SpeedProfile("p", "a test", 0.01, 0.02)  # a whole pass takes 0.1 s


def _prefill(estimate: DeviceEstimate, passes: int, factor: float) -> None:
    """Run a prompt of so many whole passes, and a decode step."""
    for index in range(passes):
        estimate.observe_pass(index * CHUNK, CHUNK, 0.1 * factor)
    estimate.observe_pass(passes * CHUNK, 1, 0.02)


def test_without_errors_a_forecast_has_the_profile_s_spread() -> None:
    errors = ForecastErrors()
    assert errors.factor(0, 4, 0.9, 0.0) == 1
    assert errors.factor(0, 4, 0.9, 0.1) == pytest.approx(1 + 1.2816 * 0.1 / 2, rel=1e-4)
    assert errors.factor(0, 4, 0.5, 0.1) == pytest.approx(1)
    assert (
        errors.factor(0, 16, 0.9, 0.1)
        < errors.factor(0, 4, 0.9, 0.1)
        < errors.factor(0, 1, 0.9, 0.1)
    )


def test_noise_of_single_passes_cancels_out_in_a_long_prompt() -> None:
    rng = random.Random(1)
    estimate = DeviceEstimate(PROFILE, CHUNK)
    for _ in range(200):
        for index in range(20):
            estimate.observe_pass(index * CHUNK, CHUNK, 0.1 * max(rng.gauss(1, 0.3), 0.1))
        estimate.observe_pass(200, 1, 0.02)
    single = estimate.pass_s(0, CHUNK) / 0.1
    assert single > 1.25, "a single pass is as uncertain as it was"
    assert 1.0 < estimate.factor(0, 20) / estimate.prefill.level < 1.25


def test_a_slow_prompt_is_slow_in_all_its_passes() -> None:
    """What does not cancel out is not taken to: every third prompt takes twice as long."""
    estimate = DeviceEstimate(PROFILE, CHUNK)
    for number in range(120):
        _prefill(estimate, 16, 2.0 if number % 3 == 0 else 1.0)
    assert estimate.prefill_s(160) > 1.6 * 1.5


def test_a_change_of_speed_is_followed_within_a_few_passes() -> None:
    estimate = DeviceEstimate(PROFILE, CHUNK)
    for _ in range(12):
        _prefill(estimate, 8, 1.0)
    before_s = estimate.prefill_s(80)
    _prefill(estimate, 8, 2.0)
    assert estimate.prefill_s(80) > 1.5 * before_s


def test_the_quantile_holds_in_its_share_of_the_cases() -> None:
    rng = random.Random(2)
    estimate = DeviceEstimate(PROFILE, CHUNK)
    held = 0
    for number in range(600):
        slow = rng.lognormvariate(0, 0.2)  # of the whole prompt
        passes = rng.randrange(1, 40)
        told_s = estimate.prefill_s(passes * CHUNK) + estimate.decode_s
        took_s = 0.02
        for index in range(passes):
            pass_s = 0.1 * slow * rng.lognormvariate(0, 0.1)
            estimate.observe_pass(index * CHUNK, CHUNK, pass_s)
            took_s += pass_s
        estimate.observe_pass(passes * CHUNK, 1, 0.02)
        held += number >= 100 and took_s <= told_s
    assert 0.85 < held / 500 < 0.95


def test_a_prefill_that_was_given_up_is_not_judged() -> None:
    errors = ForecastErrors()
    for _ in range(20):
        errors.passed(0, CHUNK, 0.1, 5.0, 1.0)  # and the next prompt begins
    errors.decoded(99, 0.02, 0.02)  # of another answer
    assert errors.factor(0, 1, 0.9, 0.0) == 1
    for _ in range(20):
        errors.passed(0, CHUNK, 0.1, 0.3, 1.0)
        errors.decoded(CHUNK, 0.02, 0.02)
    assert errors.factor(0, 1, 0.9, 0.0) == pytest.approx(3)


def test_errors_are_forgotten() -> None:
    errors = ForecastErrors()
    for _ in range(20):
        errors.passed(0, CHUNK, 0.1, 0.3, 1.0)
        errors.decoded(CHUNK, 0.02, 0.02)
    errors.forget(20)
    assert errors.factor(0, 1, 0.9, 0.0) == 1


def test_a_longer_prompt_is_never_forecast_to_take_less() -> None:
    rng = random.Random(3)
    estimate = DeviceEstimate(PROFILE, CHUNK)
    for _ in range(100):
        _prefill(estimate, rng.randrange(1, 50), rng.lognormvariate(0, 0.2))
    told = [estimate.prefill_s(tokens) for tokens in range(1, 500, CHUNK)]
    assert told == sorted(told)
