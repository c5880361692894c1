"""The planner: the least of the cloud that keeps the promise (DESIGN 4).

It compares the ways to answer (`candidates`): this device alone, both with the cloud's part as
small as it may be, both in turns, the cloud alone. Of those that keep the promise it takes the one
that holds the cloud for the fewest seconds. If none keeps it, it takes the least bad one, and says
which promise is broken. Nothing is sampled; a plan takes about a tenth of a millisecond.
"""

from dataclasses import dataclass, replace

from pd_core.errors import InvalidRequest
from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.planning.candidates import Candidate, Candidates
from pd_device_client.planning.handoff_time import CloudForecast, DeviceForecast, ready_s
from pd_device_client.planning.plan import (
    PACE_TOLERANCE,
    Expected,
    Plan,
    below_pace,
    is_below_pace,
)
from pd_device_client.planning.refined_prompt import refined
from pd_device_client.planning.spread import MISS_CHANCE, NO_SPREAD, Spread

__all__ = [
    "PACE_TOLERANCE",
    "CloudForecast",
    "Considered",
    "DeviceForecast",
    "Plan",
    "below_pace",
    "consider",
    "fixed_plan",
    "is_below_pace",
    "plan_request",
    "ready_s",
]

_ROUNDING = 1.01  # of the chance, which is computed at a few tokens only


@dataclass(frozen=True, slots=True)
class Considered:
    """All that a plan was chosen from.

    Attributes:
        plan: the chosen one.
        candidates: all, the chosen one among them; a single one where there was no choice.
    """

    plan: Plan
    candidates: tuple[Candidate, ...]


def plan_request(
    prompt_tokens: int,
    output_tokens: int,
    max_tokens: int,
    promise: Promise,
    *,
    device: DeviceForecast | None,
    cloud: CloudForecast | None,
    mode: Mode = Mode.PD_DEVICE,
    spread: Spread = NO_SPREAD,
) -> Plan:
    """Plan one request: the least cloud time that keeps the promise.

    Args:
        prompt_tokens: n.
        output_tokens: N, a quantile of past answer lengths (never this answer's own).
        max_tokens: the answer's token limit.
        promise: to the reader.
        device: the device's speeds, or None when it has no engine.
        cloud: the cloud's speeds at the forecast load, or None when it cannot be reached.
        mode: the mode asked for; pd-device may become one of the others.
        spread: how far off the speeds may be.

    Raises:
        InvalidRequest: there is neither a device engine nor a cloud, or privacy forbids the cloud.
        ContradictoryPromises: the mode cannot keep the promise.
    """
    return consider(
        prompt_tokens,
        output_tokens,
        max_tokens,
        promise,
        device=device,
        cloud=cloud,
        mode=mode,
        spread=spread,
        every_way=False,
    ).plan


def consider(
    prompt_tokens: int,
    output_tokens: int,
    max_tokens: int,
    promise: Promise,
    *,
    device: DeviceForecast | None,
    cloud: CloudForecast | None,
    mode: Mode = Mode.PD_DEVICE,
    spread: Spread = NO_SPREAD,
    every_way: bool = True,
) -> Considered:
    """Plan one request as `plan_request` does, and return what was considered too.

    With `every_way` each way is considered; without, the rest is left once it cannot be chosen.
    """
    promise.check_mode(mode)
    barred = promise.local_only or promise.max_cloud_tokens == 0
    if barred and device is not None:
        mode = Mode.DEVICE_ONLY
    elif barred:
        raise InvalidRequest(
            f"{'privacy is local-only' if promise.local_only else 'the cap on cloud tokens is 0'}, "
            "and there is no local engine; load a model here, or allow the cloud"
        )
    if device is None and cloud is None:
        raise InvalidRequest("there is neither a cloud nor a local engine to answer the request")
    output_tokens = min(output_tokens, max_tokens)
    ways = Candidates(prompt_tokens, output_tokens, max_tokens, promise, device, cloud, spread)
    if cloud is None or (mode is Mode.DEVICE_ONLY and device is not None):
        return _only(ways.device_alone())
    if device is None or mode is Mode.CLOUD_ONLY:
        return _only(ways.cloud_alone())
    alone = ways.device_alone()
    if not every_way and not promise.spare_device and not alone.why_not and _keeps(alone):
        return _only(alone)  # nothing holds the cloud for less
    found = [alone, ways.shared(), *ways.refined()]
    turns = ways.in_turns()
    found += [ways.cloud_alone()] if turns is None else [turns, ways.cloud_alone()]
    if promise.spare_device and not found[-1].why_not:
        return Considered(replace(found[-1].plan, why="the battery is low"), tuple(found))
    plan = _best(found).plan
    if plan.mode is Mode.CLOUD_ONLY:
        plan = replace(plan, why=found[1].why_not)
    return Considered(plan, tuple(found))


def _only(candidate: Candidate) -> Considered:
    return Considered(candidate.plan, (candidate,))


def _best(candidates: list[Candidate]) -> Candidate:
    """Return the one that breaks least; of those that break nothing, the cheapest."""
    possible = [c for c in candidates if not c.why_not]
    keeping = [c for c in possible if _keeps(c)]
    if keeping:
        return min(keeping, key=_cost)
    return min(
        possible, key=lambda c: (round(c.excess, 6), c.excess or round(c.risk, 2), *_cost(c))
    )


def _keeps(candidate: Candidate) -> bool:
    late = candidate.risk > MISS_CHANCE * _ROUNDING
    return candidate.excess == 0 and not late


def _cost(candidate: Candidate) -> tuple[float, float, int, float]:
    """Seconds of the cloud, then its tokens; where both are equal, more of the prompt is better."""
    plan = candidate.plan
    return candidate.cost_s, plan.expected.cloud_s, plan.cloud_tokens, -plan.keep_ratio


def fixed_plan(
    num_cloud_tokens: int,
    prompt_tokens: int,
    max_tokens: int,
    promise: Promise,
    *,
    device: DeviceForecast,
    cloud: CloudForecast,
) -> Plan:
    """Plan exactly `num_cloud_tokens` from the cloud, whatever the forecast: a baseline.

    A shorter answer comes from the cloud alone; a side that fails changes the number. Of the prompt
    the device reads no more than the promise's quality floor asks for.
    """
    k, keep_ratio = min(num_cloud_tokens, max_tokens), promise.quality_floor
    if keep_ratio < 1:
        device = refined(device, prompt_tokens, keep_ratio, cloud.first_token_s)
    return Plan(
        mode=Mode.PD_DEVICE,
        cloud_tokens=k,
        pace_s=promise.pace_s,
        keep_ratio=keep_ratio,
        ready_s=ready_s(k, prompt_tokens, device, cloud),
        first_token_s=cloud.first_token_s,
        adapts=False,
        chunk_tokens=device.chunk_tokens,
        expected=Expected(
            cloud.first_token_s,
            cloud_s=cloud.first_token_s + (k - 1) * cloud.step_s,
            handoff=k,
            cloud_tokens=k,
        ),
    )
