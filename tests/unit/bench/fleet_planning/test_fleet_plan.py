"""A fleet's plan: what it promises, what binds, and how it follows load and capacity."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from pd_bench.fleet_planning.device_class import DeviceClass
from pd_bench.fleet_planning.fleet_plan import FleetPlan, most_carried, plan_fleet
from pd_bench.fleet_planning.load_level import LoadLevel, Traffic, Waits, is_queued
from pd_bench.fleet_planning.options import FleetPromise, groups_of
from pd_bench.fleet_planning.plan_document import PlanDocument, document_of
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.device_mix import DeviceMix
from pd_core.errors import ConfigError
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, LINK_PROFILES

CLOUD = CLOUD_PROFILES["gpu-8b"].model_copy(update={"max_num_seqs": 4})
PROMISE = FleetPromise(ttft_s=2.0, pace_s=0.2, largest_gap_s=0.4)
LENGTHS = tuple((prompt, answer) for prompt in (300, 1000, 2000, 4000) for answer in (50, 400))


def _class(device: str, share: float = 1.0) -> DeviceClass:
    return DeviceClass(device, share, DEVICE_PROFILES[device], LINK_PROFILES["wifi"], LENGTHS)


MIXED = (_class("phone", 0.4), _class("laptop", 0.6))


def _least_k(plan: FleetPlan, prompt_tokens: int) -> int:
    mix = DeviceMix(document_of(plan, PROMISE, most=True).classes)
    return mix.classes[0].group_of(prompt_tokens).cloud_tokens


def test_short_prompts_never_reach_the_cloud_and_k_grows_with_the_prompt() -> None:
    plan = plan_fleet((_class("laptop"),), CLOUD, PROMISE, 1.0)
    modes = [option.mode for option in plan.options if option is not None]
    assert modes[0] is Mode.DEVICE_ONLY
    assert modes[-1] is Mode.PD_DEVICE
    assert modes == sorted(modes, key=[Mode.DEVICE_ONLY, Mode.PD_DEVICE].index)
    ks = [option.cloud_tokens for option in plan.options if option is not None]
    assert all(a <= b for a, b in itertools.pairwise(ks))
    assert plan.served > 0.999


def test_cloud_tokens_are_near_what_the_devices_need() -> None:
    """n = 4000 at 600 tokens a second, with a gap of 0.3 s to plan with: 22 without any guard."""
    plan = plan_fleet((_class("laptop"),), CLOUD, PROMISE, 0.1)
    assert 22 <= _least_k(plan, 4000) <= 27


def test_a_lower_quality_floor_takes_less_of_the_cloud() -> None:
    phones = (_class("phone"),)
    exact = plan_fleet(phones, CLOUD, PROMISE, 1.0)
    refined = plan_fleet(phones, CLOUD, replace(PROMISE, least_keep_ratio=0.5), 1.0)
    assert all(o is None or o.keep_ratio == 1.0 for o in exact.options)
    assert any(o is not None and o.keep_ratio == 0.5 for o in refined.options)
    assert all(o is None or o.keep_ratio >= 0.5 for o in refined.options)
    assert refined.used["slots"] < 0.8 * exact.used["slots"]


def test_more_arrivals_than_the_cloud_carries_are_not_all_admitted() -> None:
    some, many = (plan_fleet(MIXED, CLOUD, PROMISE, rate) for rate in (1.0, 200.0))
    assert some.served > 0.999 > many.served
    assert many.served * 200 > some.served  # and yet more requests are served
    assert min(many.admitted) < 1
    assert all(0 <= share <= 1 + 1e-9 for share in many.used.values())


@pytest.mark.slow
def test_the_rate_carried_grows_with_the_slots() -> None:
    rates = []
    for slots in (2, 8):
        cloud = CLOUD.model_copy(update={"max_num_seqs": slots})
        plan = most_carried((_class("laptop"),), cloud, PROMISE)
        assert plan is not None
        assert plan.served >= PROMISE.target
        rates.append(plan.rate_per_s)
    assert rates[1] > 1.5 * rates[0]


def test_devices_that_need_no_cloud_bound_nothing() -> None:
    short = replace(_class("edge-box"), lengths=((100, 50), (200, 60)))
    plan = most_carried((short,), CLOUD, PROMISE)
    assert plan is not None
    assert plan.rate_per_s > 1e5
    assert not any(plan.used.values())


def test_a_promise_that_no_side_can_keep_has_no_rate() -> None:
    assert most_carried(MIXED, CLOUD, replace(PROMISE, ttft_s=0.01)) is None
    assert plan_fleet(MIXED, CLOUD, replace(PROMISE, ttft_s=0.01), 1.0).served == 0.0


def test_everything_is_faster_at_a_lower_level() -> None:
    """So a plan made for a level keeps its promise at any load up to it."""
    traffic = Traffic(1.0, 1.0, 0.2)
    prompts = np.array([100.0, 4000.0])
    levels = [LoadLevel(CLOUD, work, slots) for work, slots in ((0.1, 0.2), (0.4, 0.2), (0.4, 0.9))]
    for low, high in itertools.pairwise(levels):
        assert low.step_s <= high.step_s
        assert (low.prefill_s(prompts) <= high.prefill_s(prompts)).all()
        assert low.waits(traffic).mean_s < high.waits(traffic).mean_s


def test_the_share_that_waits_is_erlangs() -> None:
    assert is_queued(1, 0.6) == pytest.approx(0.6)  # one server: as often as it is busy
    assert is_queued(2, 1.0) == pytest.approx(1 / 3)
    assert is_queued(8, 4.0) == pytest.approx(0.0590, abs=1e-4)
    # M/M/1 at a load of a half: the wait beyond t is 0.5 exp(-t / 2) at a mean service of 1.
    wait = LoadLevel(CLOUD.model_copy(update={"max_num_seqs": 1}), 0.0, 0.5)
    tail = wait.waits(Traffic(1.0, 1.0, 0.0)).longer_than(np.array([-1.0, 0.0, 2.0]))
    assert tail == pytest.approx([1.0, 0.5, 0.5 * math.exp(-1)])


def test_two_waits_add_up() -> None:
    drawn = np.random.default_rng(0)
    count = 200_000
    slot = drawn.exponential(0.5, count) * (drawn.random(count) < 0.4)
    prefill = drawn.exponential(0.2, count) * (drawn.random(count) < 0.3)
    waits = Waits(0.4, 0.5, 0.3, 0.2)
    assert waits.mean_s == pytest.approx((slot + prefill).mean(), rel=0.05)
    for seconds in (0.0, 0.3, 1.0):
        share = (slot + prefill > seconds).mean()
        assert waits.longer_than(np.array([seconds]))[0] == pytest.approx(share, abs=0.01)
    equal = Waits(0.4, 0.2, 0.3, 0.2).longer_than(np.array([0.3]))
    assert equal == pytest.approx(
        Waits(0.4, 0.2001, 0.3, 0.2).longer_than(np.array([0.3])), rel=1e-2
    )


def test_a_plan_comes_back_from_its_document() -> None:
    plan = plan_fleet(MIXED, CLOUD, PROMISE, 2.0)
    document = document_of(plan, PROMISE, most=False)
    again = PlanDocument.model_validate_json(document.model_dump_json())
    assert again == document
    assert sum(g.share for c in again.classes for g in c.groups) == pytest.approx(1.0)
    assert document.gap_to_optimum < 0.01


def test_the_groups_hold_every_request_once() -> None:
    for group in groups_of(MIXED, CLOUD, PROMISE):
        longest = group.lengths[:, 0].max()
        assert group.longest_prompt is None or longest <= group.longest_prompt
    assert sum(group.share for group in groups_of(MIXED, CLOUD, PROMISE)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *(("ttft_s", bad, "ttft") for bad in (0.0, -1.0, math.nan, math.inf)),
        *(("pace_s", bad, "pace") for bad in (0.0, -1.0, math.nan)),
        *(("largest_gap_s", bad, "contradicts") for bad in (0.1, math.nan, math.inf)),
        *(("target", bad, "target") for bad in (0.0, 1.0, math.nan)),
        *(("least_keep_ratio", bad, "keep ratio") for bad in (0.0, 1.5, math.nan)),
    ],
)
def test_promises_that_are_none_are_refused(field: str, value: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(PROMISE, **{field: value})
