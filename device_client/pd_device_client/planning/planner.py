"""The planner: how much of an answer the cloud makes (DESIGN 4).

It finds the smallest number k of cloud tokens for which the reader sees no seam at the handoff and
the pace holds to the end. All is closed form but one fixed point, found by iterating a monotone
map; a plan takes microseconds.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

from pd_core.errors import InvalidRequest
from pd_device_client.contract.ask import Mode, Promise

__all__ = [
    "PACE_TOLERANCE",
    "CloudForecast",
    "DeviceForecast",
    "Plan",
    "below_pace",
    "fixed_plan",
    "is_below_pace",
    "plan_request",
    "ready_s",
]

PACE_TOLERANCE = 1.25
"""A gap up to this factor over the pace is only smoothed."""

# Rounding of a duration must not cost a whole token.
_EPSILON_S = 1e-9
_NOT_IN_TIME = "this device would not catch up in time"


class DeviceForecast(Protocol):
    """What the planner needs of a device: a SpeedProfile or an estimate."""

    @property
    def decode_s(self) -> float:
        """D: seconds per decoded token."""
        ...

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is, not guarded against a stall."""
        ...

    def prefill_s(self, num_tokens: int) -> float:
        """P(n): seconds to prefill the first n tokens."""
        ...


@dataclass(frozen=True, slots=True)
class CloudForecast:
    """What the planner expects of the cloud at the forecast load.

    Attributes:
        first_token_s: F, from submit to the first token's arrival, network included.
        step_s: c, between two tokens' arrivals.
    """

    first_token_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's plan.

    Attributes:
        mode: which sides generate the answer.
        cloud_tokens: k, the cloud's token budget; 0 in device-only.
        pace_s: the pace to show tokens at.
        keep_ratio: rho; 1 is exact.
        ready_s: R(k), when the device can show token k + 1, from submit.
        first_token_s: when the first token is expected, from submit.
        broken: promises that cannot be kept, and what comes instead, in words.
        adapts: whether the session may deviate from k when its forecast changes; False for a
            baseline with a fixed k.
        why: why the mode is not the one asked for, in words.
    """

    mode: Mode
    cloud_tokens: int
    pace_s: float
    keep_ratio: float = 1.0
    ready_s: float = 0.0
    first_token_s: float = 0.0
    broken: tuple[str, ...] = ()
    adapts: bool = True
    why: str = ""


def ready_s(
    num_cloud_tokens: int, prompt_tokens: int, device: DeviceForecast, cloud: CloudForecast
) -> float:
    """R(k): when the device can show token k + 1, seconds from submit.

    The device prefills the prompt while the cloud generates. If the prefill ends last, all k tokens
    are absorbed after it; if the cloud does, only the tokens that arrived during one pass are left.
    """
    k = num_cloud_tokens
    after_prefill = device.prefill_s(prompt_tokens + k)
    if k == 0:
        return after_prefill + device.decode_s
    last_arrival = cloud.first_token_s + (k - 1) * cloud.step_s
    after_cloud = last_arrival + _late_s(k, prompt_tokens, device, cloud)
    return max(after_prefill, after_cloud) + device.decode_s


def _late_s(
    num_cloud_tokens: int, prompt_tokens: int, device: DeviceForecast, cloud: CloudForecast
) -> float:
    """Seconds to absorb what arrives while the device is busy with one pass."""
    late = num_cloud_tokens
    if cloud.step_s > 0:
        late = min(late, 1 + math.ceil(device.decode_s / cloud.step_s))
    return device.prefill_s(prompt_tokens + late) - device.prefill_s(prompt_tokens)


def _demand(
    num_cloud_tokens: int,
    prompt_tokens: int,
    output_tokens: int,
    promise: Promise,
    device: DeviceForecast,
    cloud: CloudForecast,
) -> float:
    """The monotone map: the cloud tokens needed if the device is ready at R(num_cloud_tokens)."""
    ready = ready_s(num_cloud_tokens, prompt_tokens, device, cloud)
    first, pace, step = cloud.first_token_s, promise.pace_s, device.decode_s
    no_seam = (ready - first - _EPSILON_S) / pace
    if step <= pace:
        return no_seam
    # D > tau: the buffer shrinks by D - tau with every token, so the last token binds.
    last = output_tokens - 1
    to_the_end = last - (first + last * pace - ready + _EPSILON_S) / step
    return max(no_seam, to_the_end)


def _least_cloud_tokens(
    prompt_tokens: int,
    output_tokens: int,
    max_tokens: int,
    promise: Promise,
    device: DeviceForecast,
    cloud: CloudForecast,
) -> int:
    """The least fixed point of `_demand`, from below; max_tokens if there is none.

    A cloud slower than the pace breaks the promise in every mode. Then k is the smallest for which
    the handoff does not add to that.
    """
    if cloud.step_s > promise.pace_s:
        late_s = _late_s(max_tokens, prompt_tokens, device, cloud)
        promise = replace(promise, pace_s=cloud.step_s + late_s)
    k = 1
    while k < max_tokens:
        needed = math.ceil(_demand(k, prompt_tokens, output_tokens, promise, device, cloud))
        if needed <= k:
            return k
        k = min(needed, max_tokens)
    return max_tokens


def plan_request(
    prompt_tokens: int,
    output_tokens: int,
    max_tokens: int,
    promise: Promise,
    *,
    device: DeviceForecast | None,
    cloud: CloudForecast | None,
    mode: Mode = Mode.PD_DEVICE,
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

    Raises:
        InvalidRequest: there is neither a device engine nor a cloud.
    """
    output_tokens = min(output_tokens, max_tokens)
    if device is None and cloud is None:
        raise InvalidRequest("there is neither a cloud nor a local engine to answer the request")
    if cloud is None or (mode is Mode.DEVICE_ONLY and device is not None):
        assert device is not None
        has_cloud = cloud is not None
        return _device_only(prompt_tokens, output_tokens, promise, device, has_cloud=has_cloud)
    if device is None or mode is Mode.CLOUD_ONLY:
        return _cloud_only(max_tokens, promise, cloud)
    alone = _device_only(prompt_tokens, output_tokens, promise, device, has_cloud=True)
    wanted = promise.ttft_s if promise.ttft_s is not None else cloud.first_token_s
    if alone.first_token_s <= wanted and device.decode_s <= promise.pace_s:
        return alone
    k = _least_cloud_tokens(prompt_tokens, output_tokens, max_tokens, promise, device, cloud)
    if k >= max_tokens:
        # The device would not catch up in time, so its prefill would be wasted.
        return _cloud_only(max_tokens, promise, cloud, _NOT_IN_TIME)
    if is_below_pace(device.usual_decode_s, promise.pace_s) and k > output_tokens / 2:
        # It would absorb most of the answer to make the rest, if the answer has a rest at all.
        why = below_pace("this device", device.usual_decode_s, promise.pace_s)
        return _cloud_only(max_tokens, promise, cloud, why)
    return Plan(
        mode=Mode.PD_DEVICE,
        cloud_tokens=k,
        pace_s=promise.pace_s,
        ready_s=ready_s(k, prompt_tokens, device, cloud),
        first_token_s=cloud.first_token_s,
        broken=_broken(promise, cloud.first_token_s, "the cloud", cloud.step_s if k > 1 else 0.0),
    )


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

    A shorter answer comes from the cloud alone; a side that fails changes the number.
    """
    k = min(num_cloud_tokens, max_tokens)
    return Plan(
        mode=Mode.PD_DEVICE,
        cloud_tokens=k,
        pace_s=promise.pace_s,
        ready_s=ready_s(k, prompt_tokens, device, cloud),
        first_token_s=cloud.first_token_s,
        adapts=False,
    )


def _device_only(
    prompt_tokens: int,
    output_tokens: int,
    promise: Promise,
    device: DeviceForecast,
    *,
    has_cloud: bool,
) -> Plan:
    first = device.prefill_s(prompt_tokens) + device.decode_s
    return Plan(
        why=f"this device alone needs {first:.2f} s" if has_cloud else "",
        mode=Mode.DEVICE_ONLY,
        cloud_tokens=0,
        pace_s=promise.pace_s,
        ready_s=first,
        first_token_s=first,
        broken=_broken(
            promise, first, "this device", device.decode_s if output_tokens > 1 else 0.0
        ),
    )


def _cloud_only(max_tokens: int, promise: Promise, cloud: CloudForecast, why: str = "") -> Plan:
    return Plan(
        mode=Mode.CLOUD_ONLY,
        cloud_tokens=max_tokens,
        pace_s=promise.pace_s,
        why=why,
        first_token_s=cloud.first_token_s,
        broken=_broken(promise, cloud.first_token_s, "the cloud", cloud.step_s),
    )


def is_below_pace(step_s: float, pace_s: float) -> bool:
    """Whether a side's tokens come too slowly for the pace, by more than is smoothed."""
    return step_s > pace_s * PACE_TOLERANCE > 0


def below_pace(whose: str, step_s: float, pace_s: float) -> str:
    """Say that a side makes tokens more slowly than they should be shown."""
    made, asked = (
        f"{rate:.3g}" if rate < 999.5 else f"{rate:.0f}" for rate in (1 / step_s, 1 / pace_s)
    )
    return f"{whose} makes {made} tokens a second; {asked} were asked for"


def _broken(promise: Promise, first_token_s: float, whose: str, step_s: float) -> tuple[str, ...]:
    """Say of each promise that cannot be kept what comes instead."""
    broken = []
    if promise.ttft_s is not None and first_token_s > promise.ttft_s + _EPSILON_S:
        broken.append(
            f"the first token comes after {first_token_s:.2f} s; "
            f"{promise.ttft_s:.2f} s was asked for"
        )
    if promise.pace_s and step_s > promise.pace_s + _EPSILON_S:
        broken.append(below_pace(whose, step_s, promise.pace_s))
    return tuple(broken)
