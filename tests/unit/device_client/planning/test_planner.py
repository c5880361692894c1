"""The planner against its golden figures and against brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import InvalidRequest
from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.planning.planner import CloudForecast, below_pace, plan_request, ready_s
from pd_device_client.planning.speeds.profiles import SpeedProfile


def _device(tokens_per_s: float, decode_s: float = 0.05) -> SpeedProfile:
    return SpeedProfile("d", "a test", 1 / tokens_per_s, decode_s)


CLOUD = CloudForecast(first_token_s=0.3, step_s=0.02)


@pytest.mark.parametrize(
    ("tokens_per_s", "pace_s", "cloud_tokens", "ready"),
    [(400, 0.2, 14, 2.9725), (400, 0.05, 56, 3.0775), (1500, 0.05, 11, 0.82733)],
)
def test_golden_figures_of_the_design(
    tokens_per_s: float, pace_s: float, cloud_tokens: int, ready: float
) -> None:
    plan = plan_request(1155, 211, 500, Promise(pace_s), device=_device(tokens_per_s), cloud=CLOUD)
    assert (plan.mode, plan.cloud_tokens) == (Mode.PD_DEVICE, cloud_tokens)
    assert plan.ready_s == pytest.approx(ready, abs=1e-4)
    assert plan.broken == ()


def _feasible(k: int, n: int, out: int, pace: float, device: SpeedProfile) -> bool:
    """The constraints of DESIGN 4 as they are written, one by one."""
    ready = ready_s(k, n, device, CLOUD)
    return all(
        CLOUD.first_token_s + (k + j) * pace >= ready + j * device.decode_s - 1e-9
        for j in range(max(out - k, 1))
    )


@given(
    n=st.integers(1, 5000),
    out=st.integers(1, 300),
    rate=st.floats(50, 20000),
    decode_s=st.floats(0.001, 0.2),
    pace=st.floats(0.021, 0.3),
)
def test_least_k_is_the_least_feasible_one(
    n: int, out: int, rate: float, decode_s: float, pace: float
) -> None:
    device = _device(rate, decode_s)
    plan = plan_request(n, out, out, Promise(pace), device=device, cloud=CLOUD)
    least = next((k for k in range(1, out) if _feasible(k, n, out, pace, device)), out)
    if plan.takes_turns:
        # The cloud's first burst is for a turn, and it makes less than it would alone.
        assert decode_s > 1.25 * pace
        assert plan.expected.cloud_tokens <= 0.75 * out
    elif plan.mode is Mode.PD_DEVICE:
        assert plan.cloud_tokens == least
    elif plan.mode is Mode.CLOUD_ONLY:
        # Or the device is below the pace, and would make less than half.
        assert least == out or (decode_s > 1.25 * pace and least > out / 2)
    else:
        assert device.prefill_s(n) + decode_s <= CLOUD.first_token_s


def test_device_alone_when_it_is_as_fast_as_the_cloud() -> None:
    plan = plan_request(100, 200, 200, Promise(0.1), device=_device(10000), cloud=CLOUD)
    assert (plan.mode, plan.cloud_tokens) == (Mode.DEVICE_ONLY, 0)


def test_a_promised_ttft_lets_the_device_answer_alone() -> None:
    device = _device(400)
    relaxed = plan_request(400, 200, 200, Promise(0.1, ttft_s=2.0), device=device, cloud=CLOUD)
    strict = plan_request(400, 200, 200, Promise(0.1, ttft_s=0.5), device=device, cloud=CLOUD)
    assert (relaxed.mode, strict.mode) == (Mode.DEVICE_ONLY, Mode.PD_DEVICE)


def test_a_device_too_slow_to_catch_up_leaves_it_to_the_cloud() -> None:
    plan = plan_request(5000, 50, 128, Promise(0.05), device=_device(50), cloud=CLOUD)
    assert (plan.mode, plan.cloud_tokens) == (Mode.CLOUD_ONLY, 128)


def test_broken_promises_are_named_with_their_size() -> None:
    slow = plan_request(
        1000, 100, 100, Promise(0.01, ttft_s=0.1), device=_device(400), cloud=CLOUD,
        mode=Mode.DEVICE_ONLY,
    )  # fmt: skip
    assert slow.broken == (
        "the first token comes after 2.55 s; 0.10 s was asked for",
        "this device makes 20 tokens a second; 100 were asked for",
    )


def test_rates_are_written_as_people_write_them() -> None:
    says = "this device makes 1250 tokens a second; 1000 were asked for"
    assert below_pace("this device", 0.0008, 0.001) == says


@pytest.mark.parametrize(
    ("decode_s", "output_tokens", "mode"),
    [
        (0.06, 300, Mode.PD_DEVICE),  # nearly the pace: what is missing is smoothed
        (0.07, 300, Mode.PD_DEVICE),  # it makes the second half while the reader reads the first
        (0.09, 40, Mode.CLOUD_ONLY),  # it would absorb most of the answer to make the rest
        (0.30, 300, Mode.CLOUD_ONLY),
    ],
)
def test_a_device_below_the_pace_takes_part_only_for_the_larger_half(
    decode_s: float, output_tokens: int, mode: Mode
) -> None:
    device = _device(400, decode_s)
    plan = plan_request(200, output_tokens, 500, Promise(0.05), device=device, cloud=CLOUD)
    assert plan.mode is mode
    says = f"this device makes {1 / decode_s:.3g} tokens a second; 20 were asked for"
    assert plan.why == (says if mode is Mode.CLOUD_ONLY else "")


def test_one_side_missing() -> None:
    assert plan_request(10, 5, 5, Promise(0.1), device=None, cloud=CLOUD).mode is Mode.CLOUD_ONLY
    alone = plan_request(
        10, 5, 5, Promise(0.1), device=_device(10), cloud=None, mode=Mode.CLOUD_ONLY
    )
    assert alone.mode is Mode.DEVICE_ONLY
    with pytest.raises(InvalidRequest, match="neither"):
        plan_request(10, 5, 5, Promise(0.1), device=None, cloud=None)


def test_a_cloud_near_the_pace_is_no_cliff() -> None:
    def planned(step_s: float) -> tuple[Mode, int, tuple[str, ...]]:
        cloud = CloudForecast(first_token_s=0.3, step_s=step_s)
        plan = plan_request(1155, 211, 1000, Promise(0.05), device=_device(400), cloud=cloud)
        return plan.mode, plan.cloud_tokens, plan.broken

    assert planned(0.045) == (Mode.PD_DEVICE, 56, ())
    assert planned(0.049) == (Mode.PD_DEVICE, 56, ())
    mode, cloud_tokens, broken = planned(0.055)
    assert (mode, broken) == (
        Mode.PD_DEVICE,
        ("the cloud makes 18.2 tokens a second; 20 were asked for",),
    )
    assert cloud_tokens <= 60


def test_an_answer_expected_to_be_short_is_still_handed_over_if_it_is_not() -> None:
    plan = plan_request(1155, 10, 1000, Promise(0.05), device=_device(400), cloud=CLOUD)
    assert (plan.mode, plan.cloud_tokens) == (Mode.PD_DEVICE, 56)


def test_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="device-only, cloud-only, pd-device"):
        Mode.parse("both")


def test_ready_waits_for_the_last_cloud_token() -> None:
    late = CloudForecast(first_token_s=5.0, step_s=0.1)
    # During one pass of 0.05 s one more token comes: two are left to absorb after the last.
    assert ready_s(3, 100, _device(400), late) == pytest.approx(5.2 + 2 / 400 + 0.05)
    assert math.isclose(ready_s(0, 400, _device(400), late), 1.05)
