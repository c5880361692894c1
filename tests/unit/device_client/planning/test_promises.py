"""Plans under promises: what is kept, what is broken and said, and what is never done."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.errors import ContradictoryPromises, InvalidRequest
from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.planning.candidates import Candidate
from pd_device_client.planning.plan_notes import plan_words
from pd_device_client.planning.plan_reasons import expectations, plan_document, reasons
from pd_device_client.planning.planner import CloudForecast, Considered, consider, plan_request
from pd_device_client.planning.refined_prompt import refined
from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.spread import Spread, margin_s

CLOUD = CloudForecast(0.3, 0.02)
PHONE = SpeedProfile("phone", "a test", 1 / 150, 0.08)
LAPTOP = SpeedProfile("laptop", "a test", 1 / 600, 0.04)


def _chosen(considered: Considered) -> Candidate:
    return next(
        c
        for c in considered.candidates
        if (c.plan.mode, c.plan.turn_tokens, c.plan.cloud_tokens, c.plan.keep_ratio)
        == (
            considered.plan.mode,
            considered.plan.turn_tokens,
            considered.plan.cloud_tokens,
            considered.plan.keep_ratio,
        )
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pace_s": math.nan}, "the pace is nan"),
        ({"pace_s": -1.0}, "the pace is -1"),
        ({"ttft_s": -0.5}, "first token is -0.5"),
        ({"ttft_s": math.inf}, "first token is inf"),
        ({"largest_gap_s": math.nan}, "largest gap is nan"),
        ({"largest_gap_s": 0.0}, "largest gap is 0"),
        ({"quality_floor": 0.0}, "keep ratio is 0"),
        ({"quality_floor": 1.5}, "keep ratio is 1.5"),
        ({"max_cloud_tokens": -1}, "cloud tokens is -1"),
    ],
)
def test_a_promise_out_of_its_range_is_named(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Promise(**{"pace_s": 0.1, **wrong})  # type: ignore[arg-type]


def test_promises_that_contradict_each_other_are_both_named() -> None:
    with pytest.raises(ContradictoryPromises, match=r"gap of 0.1 s .* pace of 0.2 s"):
        Promise(0.2, largest_gap_s=0.1)
    local, capped = Promise(0.1, local_only=True), Promise(0.1, max_cloud_tokens=0)
    for promise, says in ((local, "local-only.*cloud-only"), (capped, "tokens is 0.*cloud-only")):
        with pytest.raises(ContradictoryPromises, match=says):
            Ask("r", (1,), 5, mode=Mode.CLOUD_ONLY, promise=promise)
        with pytest.raises(ContradictoryPromises, match=says):
            plan_request(9, 5, 5, promise, device=LAPTOP, cloud=CLOUD, mode=Mode.CLOUD_ONLY)


@pytest.mark.parametrize(
    "promise", [Promise(0.1, local_only=True), Promise(0.1, max_cloud_tokens=0)]
)
def test_where_the_cloud_may_make_nothing_the_device_answers_alone_or_nobody(
    promise: Promise,
) -> None:
    plan = plan_request(9000, 50, 50, promise, device=PHONE, cloud=CLOUD)
    assert (plan.mode, plan.cloud_tokens) == (Mode.DEVICE_ONLY, 0)
    with pytest.raises(InvalidRequest, match="there is no local engine"):
        plan_request(9, 50, 50, promise, device=None, cloud=CLOUD)


def test_a_cap_is_kept_and_what_it_costs_is_said() -> None:
    plan = plan_request(
        1155, 256, 512, Promise(0.05, max_cloud_tokens=10), device=LAPTOP, cloud=CLOUD
    )
    assert (plan.mode, plan.cloud_tokens) == (Mode.PD_DEVICE, 10)
    assert plan.expected.largest_gap_s == pytest.approx((plan.ready_s - 0.3) / 10)
    (broken,) = plan.broken
    assert broken.startswith("the cloud may make 10 tokens at most, and 35 would be needed")


def test_a_promised_gap_stretches_the_pace_of_a_device_below_it() -> None:
    plan = plan_request(300, 400, 400, Promise(0.05, largest_gap_s=0.1), device=PHONE, cloud=CLOUD)
    assert (plan.mode, plan.pace_s, plan.broken) == (Mode.PD_DEVICE, 0.08, ())
    assert "stretched to 0.08 s" in plan_words(plan, 300)
    even = plan_request(300, 400, 400, Promise(0.05), device=PHONE, cloud=CLOUD)
    assert plan.cloud_tokens < even.cloud_tokens


def test_a_device_below_the_pace_takes_turns_where_that_saves_a_quarter() -> None:
    plan = plan_request(300, 600, 600, Promise(0.05), device=PHONE, cloud=CLOUD)
    assert plan.takes_turns
    assert plan.expected.cloud_tokens < 0.75 * 600
    assert "take turns" in plan_words(plan, 300)
    short = plan_request(300, 60, 60, Promise(0.05), device=PHONE, cloud=CLOUD)
    assert not short.takes_turns


def test_a_low_battery_prefers_the_cloud_but_not_against_caps_or_privacy() -> None:
    low = Promise(0.05, spare_device=True)
    plan = plan_request(1155, 256, 256, low, device=LAPTOP, cloud=CLOUD)
    assert (plan.mode, plan.why) == (Mode.CLOUD_ONLY, "the battery is low")
    for stronger in (replace(low, max_cloud_tokens=40), replace(low, local_only=True)):
        plan = plan_request(1155, 256, 256, stronger, device=LAPTOP, cloud=CLOUD)
        assert plan.mode is not Mode.CLOUD_ONLY
        assert plan.cloud_tokens <= 40
    assert plan_request(9, 9, 9, low, device=LAPTOP, cloud=None).mode is Mode.DEVICE_ONLY


def test_a_quality_floor_below_one_is_used_where_it_saves_the_cloud() -> None:
    exact = plan_request(4000, 256, 256, Promise(0.1), device=LAPTOP, cloud=CLOUD)
    half = plan_request(4000, 256, 256, Promise(0.1, quality_floor=0.5), device=LAPTOP, cloud=CLOUD)
    assert (exact.keep_ratio, half.keep_ratio) == (1.0, 0.5)
    assert half.ready_s < exact.ready_s
    assert half.cloud_tokens < exact.cloud_tokens


@pytest.mark.parametrize(("chunk", "kept"), [(32, 64 + 468), (512, 512 + 244)])
def test_a_refined_prompt_keeps_the_passes_that_the_engine_has_begun(chunk: int, kept: int) -> None:
    # The cloud's positions come after 0.1 s: 60 tokens are read, in passes of its own.
    found = refined(DeviceEstimate(LAPTOP, chunk), 1000, 0.5, 0.1)
    assert found.kept_tokens == kept
    assert found.chunk_tokens == chunk


def test_many_small_passes_err_less_in_sum_than_few_large_ones() -> None:
    margins = [margin_s(Spread(0.1, pass_tokens=n), 5.0, 4096, 0.04, 0.05, 0) for n in (64, 256)]
    assert margins[0] == pytest.approx(margins[1] / 2)


def test_a_plan_says_the_passes_in_which_the_device_reads() -> None:
    device = DeviceEstimate(LAPTOP, 96)
    for promise in (Promise(0.1), Promise(0.1, local_only=True)):
        plan = plan_request(4000, 256, 256, promise, device=device, cloud=CLOUD)
        assert plan.chunk_tokens == 96
        assert ("prefill in passes of", "96 tokens") in expectations(plan)


def test_a_forecast_that_may_err_gets_more_cloud_tokens_only_for_a_promise_by_name() -> None:
    promise, spread = Promise(0.05, largest_gap_s=0.0625), Spread(0.1)

    def planned(promise: Promise, spread: Spread) -> int:
        plan = plan_request(4000, 500, 500, promise, device=LAPTOP, cloud=CLOUD, spread=spread)
        return plan.cloud_tokens

    assert planned(promise, spread) > planned(promise, Spread())
    assert planned(Promise(0.05), spread) == planned(Promise(0.05), Spread())


_PROMISES = st.builds(
    lambda pace, ttft, gap, cap: Promise(
        pace, ttft, largest_gap_s=None if gap is None else gap * pace, max_cloud_tokens=cap
    ),
    st.sampled_from([0.03, 0.05, 0.1, 0.2]),
    st.none() | st.floats(0.1, 10),
    st.none() | st.floats(1, 4),
    st.none() | st.integers(0, 300),
)
_SITUATION = {
    "prompt": st.integers(1, 8000),
    "output": st.integers(1, 400),
    "device": st.builds(
        lambda rate, step: SpeedProfile("d", "a test", 1 / rate, step),
        st.floats(80, 5000),
        st.floats(0.005, 0.2),
    ),
    "cloud": st.builds(CloudForecast, st.floats(0.01, 3), st.floats(0.003, 0.15)),
    "spread": st.builds(Spread, st.sampled_from([0.0, 0.05, 0.1]), st.sampled_from([0.0, 0.02])),
}


@settings(deadline=None)
@given(promise=_PROMISES, **_SITUATION)
def test_no_plan_passes_a_cap_and_broken_is_said_exactly_where_it_is(
    promise: Promise,
    prompt: int,
    output: int,
    device: SpeedProfile,
    cloud: CloudForecast,
    spread: Spread,
) -> None:
    found = consider(prompt, output, output, promise, device=device, cloud=cloud, spread=spread)
    plan = found.plan
    assert plan.cloud_tokens <= output
    if promise.max_cloud_tokens is not None:
        assert plan.cloud_tokens <= promise.max_cloud_tokens
    late = promise.ttft_s is not None and plan.first_token_s > promise.ttft_s + 1e-6
    slow = plan.expected.largest_gap_s > promise.gap_limit_s + 1e-6
    assert bool(plan.broken) == (late or slow), plan
    assert plan.pace_s <= max(promise.gap_limit_s, promise.pace_s) + 1e-9
    quick = plan_request(prompt, output, output, promise, device=device, cloud=cloud, spread=spread)
    assert quick == plan, "what is left out could not be chosen"
    assert len(reasons(found)) >= len(found.candidates)
    assert plan_document(found)["plan"]["cloud_tokens"] == plan.cloud_tokens
    assert dict(expectations(plan))["keep ratio"] == "1"


@settings(deadline=None)
@given(
    pace=st.sampled_from([0.05, 0.1, 0.2]),
    gaps=st.tuples(st.floats(1, 4), st.floats(1, 4)),
    ttfts=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)),
    **_SITUATION,
)
def test_who_is_promised_less_never_costs_the_cloud_more(
    pace: float,
    gaps: tuple[float, float],
    ttfts: tuple[float, float],
    prompt: int,
    output: int,
    device: SpeedProfile,
    cloud: CloudForecast,
    spread: Spread,
) -> None:
    strict = Promise(pace, min(ttfts), largest_gap_s=min(gaps) * pace)
    lax = Promise(pace, max(ttfts), largest_gap_s=max(gaps) * pace)
    first, second = (
        consider(prompt, output, output, promise, device=device, cloud=cloud, spread=spread)
        for promise in (strict, lax)
    )
    if not first.plan.broken and _chosen(first).risk <= 0.01:
        assert not second.plan.broken
        assert _chosen(second).cost_s <= _chosen(first).cost_s + 1e-9
