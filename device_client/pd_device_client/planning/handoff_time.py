"""When a device is ready to go on after the cloud, and how many cloud tokens that takes (DESIGN 4).

The smallest number k of cloud tokens with which the reader sees no seam at the handoff and the pace
holds is the least fixed point of a monotone map. All else is closed form.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pd_device_client.planning.spread import NO_SPREAD, Spread, margin_s

__all__ = [
    "EPSILON_S",
    "CloudForecast",
    "DeviceForecast",
    "Situation",
    "least_cloud_tokens",
    "ready_s",
]

EPSILON_S = 1e-9
"""Rounding of a duration must not cost a whole token."""

_FEW_STEPS = 4


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

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of each pass of the prefill; None: unknown."""
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
class Situation:
    """One request as both sides are forecast to meet it.

    Attributes:
        prompt_tokens: n, what the device has to prefill.
        device: the device's speeds.
        cloud: the cloud's speeds.
        spread: how far off these forecasts may be.
    """

    prompt_tokens: int
    device: DeviceForecast
    cloud: CloudForecast
    spread: Spread = NO_SPREAD

    def ready_s(self, num_cloud_tokens: int) -> float:
        """R(k)."""
        return ready_s(num_cloud_tokens, self.prompt_tokens, self.device, self.cloud)

    def late_ready_s(self, num_cloud_tokens: int, pace_s: float, device_tokens: int) -> float:
        """R(k) as late as it comes once in a hundred answers, with what its tokens lose after it.

        The prefill's errors count only where the prefill ends last, not the cloud.
        """
        device, n, k = self.device, self.prompt_tokens, num_cloud_tokens
        prefill_s, decode_s = device.prefill_s(n + k), device.decode_s
        steps = (n, decode_s, pace_s, device_tokens)
        after_prefill = prefill_s + margin_s(self.spread, prefill_s, *steps)
        after_cloud = self.after_cloud_s(k) + margin_s(Spread(self.spread.device), 0.0, *steps)
        return max(after_prefill, after_cloud) + decode_s

    def after_cloud_s(self, num_cloud_tokens: int) -> float:
        """When the last of k cloud tokens is absorbed, as far as the cloud decides it."""
        k, cloud = num_cloud_tokens, self.cloud
        last_arrival = cloud.first_token_s + (k - 1) * cloud.step_s
        return last_arrival + _late_s(k, self.prompt_tokens, self.device, cloud)


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
    k: int,
    situation: Situation,
    pace_s: float,
    gap_s: float,
    last: int | None,
    device_tokens: int,
    seam_s: float,
) -> float:
    """The monotone map: the cloud tokens needed if the device is ready at R(k)."""
    first_s, step_s = situation.cloud.first_token_s, situation.device.decode_s
    ready = situation.ready_s(k)
    left = device_tokens if last is None else last - k
    ready -= seam_s
    if situation.spread != NO_SPREAD and gap_s < math.inf:
        ready = max(ready, situation.late_ready_s(k, pace_s, left) - (gap_s - pace_s))
    no_seam = (ready - first_s - EPSILON_S) / pace_s
    if step_s <= pace_s:
        return no_seam
    # D > tau: the reader's store shrinks by D - tau with every token, so the last token binds.
    if last is None:
        # The store must last for `device_tokens` tokens, wherever they begin.
        return max(no_seam, no_seam + device_tokens * (step_s - pace_s) / pace_s)
    to_the_end = last - (first_s + last * pace_s - ready + EPSILON_S) / step_s
    return max(no_seam, to_the_end)


def least_cloud_tokens(
    situation: Situation,
    pace_s: float,
    gap_s: float,
    most: int,
    *,
    output_tokens: int = 0,
    device_tokens: int | None = None,
) -> tuple[int, list[int]]:
    """Return the least fixed point of `_demand`, from below, and the steps to it.

    A cloud slower than the pace breaks the promise in every mode. Then k is the smallest for which
    the handoff does not add to that.

    Args:
        situation: the forecasts.
        pace_s: tau.
        gap_s: a gap that still breaks nothing, if a forecast errs.
        most: returned if there is none below.
        output_tokens: N, up to which the pace must hold.
        device_tokens: instead, for how many of the device's tokens it must hold.
    """
    cloud, seam_s = situation.cloud, 0.0
    if cloud.step_s > pace_s:
        late_s = _late_s(most, situation.prompt_tokens, situation.device, cloud)
        pace_s, behind_s = cloud.step_s, late_s + situation.device.decode_s
        if behind_s > gap_s or math.isinf(gap_s):
            pace_s += late_s
            gap_s = max(gap_s, pace_s)
        elif behind_s > pace_s:
            seam_s = gap_s - pace_s  # it stays so far behind a cloud that it waits for
    last = output_tokens - 1 if device_tokens is None else None

    def needed(k: int) -> int:
        return math.ceil(_demand(k, situation, pace_s, gap_s, last, device_tokens or 0, seam_s))

    k, steps = 1, [1]
    while k < most:
        wanted = needed(k)
        if wanted <= k:
            return k, steps
        if len(steps) > _FEW_STEPS:  # the map is nearly as steep as its argument
            return _searched(needed, k, most, steps)
        k = min(wanted, most)
        steps.append(k)
    return most, steps


def _searched(
    needed: Callable[[int], int], low: int, most: int, steps: list[int]
) -> tuple[int, list[int]]:
    """Return the least k above `low` with needed(k) <= k by widening, then halving."""
    width = 1
    while low + width < most and needed(low + width) > low + width:
        low, width = low + width, 2 * width
    candidates = range(low + 1, min(low + width, most))
    k = low + 1 + bisect.bisect_left(candidates, True, key=lambda k: needed(k) <= k)
    return k, [*steps, k]
