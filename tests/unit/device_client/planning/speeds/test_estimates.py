"""Speed estimates: predictions corrected by what is observed, guarded by a high quantile."""

import math
import random
from dataclasses import replace

import pytest

from pd_core.generation import Load
from pd_device_client.planning.speeds.estimates import CloudEstimate, DeviceEstimate, Ratios
from pd_device_client.planning.speeds.profiles import TOKEN_BYTES, SpeedProfile
from pd_device_client.planning.speeds.queued_device import QueuedDevice

PROFILE = SpeedProfile("p", "a test", 0.01, 0.05)


def test_no_observation_changes_nothing() -> None:
    estimate = DeviceEstimate(PROFILE)
    assert estimate.prefill_s(100) == pytest.approx(1.0)
    assert estimate.decode_s == pytest.approx(0.05)


def test_a_forecast_takes_a_high_quantile_of_the_ratios() -> None:
    ratios = Ratios()
    for observed in range(1, 11):
        ratios.add(observed, 1.0)
    assert ratios.quantile(0.9) == 10
    assert ratios.quantile(0.5) == 6
    assert ratios.quantile(0.0) == 1


def test_prefill_and_decode_learn_apart() -> None:
    estimate = DeviceEstimate(PROFILE)
    estimate.observe_pass(0, 10, 0.2)
    assert estimate.prefill_s(100) == pytest.approx(2.0)
    assert estimate.pass_s(100, 10) == pytest.approx(0.2)
    assert estimate.decode_s == pytest.approx(0.05)
    estimate.observe_pass(10, 1, 0.1)
    assert estimate.decode_s == pytest.approx(0.1)


def test_a_device_that_gives_way_is_forecast_slower_and_learns_nothing_from_it() -> None:
    estimate = DeviceEstimate(PROFILE, chunk_tokens=100)
    estimate.give_way(2.0, 3.0)
    assert estimate.prefill_s(100) == pytest.approx(2.0)
    assert estimate.pass_s(0, 10) == pytest.approx(0.2)
    assert estimate.decode_s == estimate.usual_decode_s == pytest.approx(0.15)
    for _ in range(5):
        estimate.observe_pass(0, 10, 0.2)
        estimate.observe_pass(10, 1, 0.15)
    assert estimate.learned.prefill_b_s == pytest.approx(PROFILE.prefill_b_s)
    assert estimate.learned.decode_s == pytest.approx(PROFILE.decode_s)
    estimate.give_way(1.0, 1.0)
    assert estimate.decode_s == pytest.approx(0.05)


def test_what_a_device_showed_fades_while_it_is_not_used() -> None:
    estimate = DeviceEstimate(PROFILE)
    for _ in range(28):
        estimate.observe_pass(100, 1, 0.5)
        estimate.observe_pass(0, 10, 1.0)
    for _ in range(4):
        estimate.observe_pass(100, 1, 0.1)
    for _ in range(14):
        assert estimate.decode_s == pytest.approx(0.5)
        estimate.not_used()
    assert estimate.decode_s == pytest.approx(0.1)
    assert estimate.prefill_s(100) == pytest.approx(1.0)
    for _ in range(2):
        estimate.not_used()
    assert estimate.decode_s == pytest.approx(0.05)


def test_old_observations_are_forgotten() -> None:
    ratios = Ratios()
    ratios.add(100, 1)
    for _ in range(32):
        ratios.add(1, 1)
    assert ratios.quantile(1.0) == 1


def test_a_cloud_forecast_counts_the_queue_and_what_was_seen() -> None:
    load = Load(queued_prefill_tokens=500, prefill_tokens_per_s=1000, decode_step_s=0.02)
    estimate = CloudEstimate(rtt_s=0.03, load=load)
    assert estimate.forecast(100).first_token_s == pytest.approx(0.03 + 0.6 + 0.02)
    assert estimate.forecast(100).step_s == pytest.approx(0.02)
    estimate.observe_first(100, 1.3)
    assert estimate.forecast(100).first_token_s == pytest.approx(1.3)
    estimate.observe_step(0.05)
    assert estimate.forecast(100).step_s == pytest.approx(0.05)


def test_a_stall_says_nothing_of_a_clouds_usual_speed() -> None:
    estimate = CloudEstimate(step_s=0.03)
    assert estimate.usual_step_s == 0.03
    for seconds in (0.02, 0.02, 0.02, 3.0, 0.02):
        estimate.observe_step(seconds)
    assert estimate.usual_step_s == pytest.approx(0.02)
    assert estimate.step_s > 0.2
    for _ in range(6):
        estimate.observe_step(0.4)
    assert estimate.usual_step_s == pytest.approx(0.4), "a cloud that has slowed down is slow"


def test_a_cloud_that_publishes_nothing_is_taken_for_fast() -> None:
    # An early F asks for more tokens: the safe side.
    assert CloudEstimate(rtt_s=0.03).forecast(5000).first_token_s == pytest.approx(0.03)


def test_what_was_learned_is_the_profile_times_the_medians() -> None:
    estimate = DeviceEstimate(PROFILE)
    assert estimate.learned == PROFILE
    for seconds in (0.2, 0.2, 0.9):
        estimate.observe_pass(0, 10, seconds)
    estimate.observe_pass(10, 1, 3 * PROFILE.decode_s)
    ratio = 0.2 / PROFILE.pass_s(0, 10)
    assert estimate.learned.prefill_b_s == pytest.approx(ratio * PROFILE.prefill_b_s)
    assert estimate.learned.decode_s == pytest.approx(3 * PROFILE.decode_s)
    assert estimate.profile == PROFILE


def test_a_token_that_took_no_pass_says_nothing_of_the_speed() -> None:
    estimate = DeviceEstimate(SpeedProfile("test", "a test", prefill_b_s=0.001, decode_s=0.01))
    for _ in range(20):
        estimate.observe_pass(100, 1, 0.011)
        estimate.observe_pass(101, 1, 0.00001)
    assert estimate.decode_s == pytest.approx(0.011)
    assert estimate.learned.decode_s == pytest.approx(0.011)


@pytest.mark.parametrize("seconds", [0.0, -1.0, -1e9, float("nan"), float("inf"), 3600.0])
def test_a_clock_that_jumped_shows_nothing(seconds: float) -> None:
    estimate = DeviceEstimate(PROFILE, chunk_tokens=100)
    before = estimate.prefill_s(500), estimate.decode_s, estimate.pass_s(0, 100)
    for _ in range(40):
        estimate.observe_pass(0, 100, seconds)
        estimate.observe_pass(100, 1, seconds)
    assert (estimate.prefill_s(500), estimate.decode_s, estimate.pass_s(0, 100)) == before
    cloud = CloudEstimate(rtt_s=0.03)
    cloud.observe_first(100, seconds)
    cloud.observe_rtts([seconds] if seconds else [])
    cloud.observe_step(seconds or -1.0)
    assert cloud.forecast(100).first_token_s == pytest.approx(0.03)
    assert (cloud.rtt_s, cloud.step_s) == (0.03, 0.0)


def test_a_very_slow_device_is_no_clock_that_jumped() -> None:
    estimate = DeviceEstimate(PROFILE, chunk_tokens=100)
    estimate.observe_pass(0, 100, 50.0)
    assert estimate.prefill_s(100) == pytest.approx(50)


def test_a_decode_step_takes_longer_with_more_context() -> None:
    profile = SpeedProfile("p", "a test", 0.001, 0.01, decode_l_s=1e-5)
    estimate = DeviceEstimate(profile, chunk_tokens=100)
    assert estimate.decode_s == pytest.approx(0.01)
    for position in range(0, 1000, 100):
        estimate.observe_pass(position, 100, 0.1)
    assert estimate.decode_s == pytest.approx(0.02)
    estimate.observe_pass(1000, 1, 0.04)
    assert estimate.learned.decode_l_s == pytest.approx(2e-5)
    device = QueuedDevice(DeviceEstimate(profile, 100), 0.5, 0, context_tokens=2000)
    assert device.decode_s == device.usual_decode_s == pytest.approx(0.03)
    assert device.decode_quantile_s(0.5) == pytest.approx(0.03)
    assert device.prefill_quantile_s(500, 0.9) == device.prefill_s(500) == pytest.approx(1.0)


def test_a_plan_asks_the_same_question_once() -> None:
    estimate, asked = DeviceEstimate(PROFILE, 100), list[int]()

    class Counted(DeviceEstimate):
        def work_s(self, done: int, end: int, q: float = 0.9) -> float:
            asked.append(end)
            return super().work_s(done, end, q)

    device = QueuedDevice(Counted(PROFILE, 100), 0.5, 40)
    for tokens in (300, 301, 300, 301, 300):
        assert device.prefill_s(tokens) == 0.5 + estimate.work_s(40, tokens)
    assert asked == [300, 301]


def test_the_spread_of_passes_is_what_was_seen_and_stalls_count_little() -> None:
    profile, rng = replace(PROFILE, spread=0.02), random.Random(3)
    estimate = DeviceEstimate(profile, 100)
    assert estimate.spread == 0.02
    for i in range(32):
        stalled = 20 if i % 16 == 5 else 1
        estimate.observe_pass(0, 100, stalled * max(rng.gauss(1.0, 0.1), 0.1))
    assert estimate.spread == pytest.approx(0.1, rel=0.5)
    for _ in range(32):
        estimate.observe_pass(100, 1, 0.05 * max(rng.gauss(1.0, 0.3), 0.2))
    assert estimate.spread == pytest.approx(0.3, rel=0.5)


def test_the_bandwidth_is_what_a_long_prompt_takes_beyond_a_round_trip() -> None:
    cloud, byte_s = CloudEstimate(), 1e-6
    cloud.observe_rtts([0.02, 0.03, 0.04])
    for tokens in (10, 500, 1000):
        cloud.observe_upload(tokens, 5.0)  # too short to tell anything
    assert cloud.upload_bytes_per_s is None
    for tokens in (2000, 4000, 8000, 16000):
        cloud.observe_upload(tokens, 0.03 + tokens * TOKEN_BYTES * byte_s)
    assert cloud.upload_bytes_per_s == pytest.approx(1e6)
    for seconds in (math.nan, -1.0, 1e6):  # a clock that jumped
        cloud.observe_upload(4000, seconds)
    cloud.observe_upload(4000, 3.0)  # a stall
    assert cloud.upload_bytes_per_s == pytest.approx(1e6)
    # The prompt's way belongs to the first token's, of which nothing else is known.
    assert cloud.forecast(10_000).first_token_s == pytest.approx(0.02 + 0.03)


def test_a_first_token_has_a_spread_once_it_was_seen() -> None:
    cloud = CloudEstimate(rtt_s=0.5)
    for ratio in (1.0, 1.0):
        cloud.observe_first(100, ratio * 0.5)
    assert cloud.first_token_sd_s(100) == 0.0
    rng = random.Random(1)
    for _ in range(40):
        cloud.observe_first(100, max(rng.gauss(0.5, 0.1), 0.01))
    assert cloud.first_token_sd_s(100) == pytest.approx(0.1, rel=0.4)


def test_a_cloud_and_its_link_have_quantiles() -> None:
    load = Load(queued_prefill_tokens=0, prefill_tokens_per_s=1000, decode_step_s=0.02)
    cloud = CloudEstimate(rtt_s=0.03, load=load)
    assert cloud.first_token_quantile_s(950, 0.9) == pytest.approx(1.0)
    assert cloud.step_quantile_s(0.9) == 0.02
    assert cloud.rtt_quantile_s(0.9) == 0.03
    for percent in range(1, 101):
        cloud.observe_first(950, percent / 50)
        cloud.observe_step(percent / 1000)
    cloud.observe_rtts([0.04, 0.02, 0.06])
    low, usual, high = (cloud.first_token_quantile_s(1950, q) for q in (0.1, 0.5, 0.9))
    assert low < usual < high
    assert usual == pytest.approx(2 * cloud.first_token_quantile_s(950, 0.5), rel=0.01)
    assert cloud.step_quantile_s(0.1) < cloud.step_quantile_s(0.9)
    assert cloud.rtt_s == 0.02
    assert cloud.jitter_s == pytest.approx(0.02)
