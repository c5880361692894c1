"""The plan of one request, from what the client knows of both sides."""

from dataclasses import replace
from statistics import NormalDist

from pd_device_client.contract.ask import Ask, Mode, Promise
from pd_device_client.planning.planner import Plan, fixed_plan, plan_request
from pd_device_client.planning.speeds.estimates import GUARD_QUANTILE
from pd_device_client.planning.speeds.queued_device import QueuedDevice
from pd_device_client.planning.spread import USUAL_PASS_TOKENS, Spread
from pd_device_client.session.sides import Sides

__all__ = ["plan_for"]


def plan_for(ask: Ask, promise: Promise, expected_tokens: int, sides: Sides) -> Plan:
    """Plan a request.

    Args:
        ask: the request.
        promise: to its reader.
        expected_tokens: N, a quantile of past answers' lengths.
        sides: those that take part, and their speeds.

    Raises:
        RequestError: no plan is possible.
    """
    num_prompt, engine = len(ask.prompt_token_ids), sides.engine
    device = None
    if engine is not None:
        cached = engine.cached_tokens(ask.prompt_token_ids)
        wait_s = sides.turns.forecast_s()
        if not engine.leaves_out:
            promise = replace(promise, quality_floor=1.0)
        device = QueuedDevice(sides.device_estimate, wait_s, cached, num_prompt)
    cloud = None if sides.link is None else sides.cloud_estimate.forecast(num_prompt)
    k, limit = ask.cloud_tokens, ask.max_tokens
    if k is not None and ask.mode is Mode.PD_DEVICE and device is not None and cloud is not None:
        return fixed_plan(k, num_prompt, limit, promise, device=device, cloud=cloud)
    return plan_request(
        num_prompt,
        expected_tokens,
        limit,
        promise,
        device=device,
        cloud=cloud,
        mode=ask.mode,
        spread=_spread(sides, num_prompt),
    )


def _spread(sides: Sides, num_prompt: int) -> Spread:
    """The device's and the cloud's, as they were seen.

    The device's forecasts are late by a high quantile of the former already.
    """
    device, cloud = sides.device_estimate, sides.cloud_estimate
    return Spread(
        device.spread,
        0.0 if sides.link is None else cloud.first_token_sd_s(num_prompt),
        guard=NormalDist().inv_cdf(GUARD_QUANTILE),
        pass_tokens=device.chunk_tokens or USUAL_PASS_TOKENS,
    )
