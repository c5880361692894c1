"""The ways to answer one request, each with what it costs and what it breaks.

A candidate is a plan that could be carried out. The planner takes the one that breaks least, and of
those the one that holds the cloud for the fewest seconds.
"""

import math
from dataclasses import dataclass, replace

from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.planning.handoff_time import (
    EPSILON_S,
    CloudForecast,
    DeviceForecast,
    Situation,
    least_cloud_tokens,
)
from pd_device_client.planning.plan import (
    PACE_TOLERANCE,
    RETURN_SLACK_S,
    Expected,
    Plan,
    below_pace,
    is_below_pace,
)
from pd_device_client.planning.refined_prompt import KEEP_RATIOS, refined
from pd_device_client.planning.spread import NO_SPREAD, Spread, gap_chance, late_chance

__all__ = ["Candidate", "Candidates"]

_LEAST_TURN_TOKENS = 32
_RETURNS_PER_TURN = 4  # a turn lasts so many times longer than the cloud's way back
_TURNS_SAVE = 0.25  # of the cloud's tokens at least, or the device's work is not worth it
_TYPICAL = 0.5  # of the length planned for, which few answers reach


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to answer.

    Attributes:
        plan: the plan.
        excess: by how much it breaks the promised times: 0 breaks none, 1 is twice as long.
        risk: the chance that chance alone breaks a time that was promised by name.
        cost_s: seconds for which an answer of usual length holds the cloud.
        why_not: why it is no choice at all; "" if it is one.
        steps: the fixed point's way to k.
    """

    plan: Plan
    excess: float = 0.0
    risk: float = 0.0
    cost_s: float = 0.0
    why_not: str = ""
    steps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Makes the candidates of one request.

    Attributes:
        prompt_tokens: n.
        output_tokens: N, a quantile of past answers' lengths.
        max_tokens: the answer's token limit.
        promise: to the reader.
        device: the device's speeds; None without one.
        cloud: the cloud's speeds; None without one.
        spread: how far off both may be.
    """

    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    promise: Promise
    device: DeviceForecast | None
    cloud: CloudForecast | None
    spread: Spread = NO_SPREAD

    @property
    def _wanted_ttft_s(self) -> float:
        """The latest first token that breaks no promise; without one, the cloud's."""
        if self.promise.ttft_s is not None:
            return self.promise.ttft_s
        return math.inf if self.cloud is None else self.cloud.first_token_s

    @property
    def _cap(self) -> int:
        cap = self.promise.max_cloud_tokens
        return self.max_tokens if cap is None else min(cap, self.max_tokens)

    @property
    def _gap_s(self) -> float:
        """A gap that still breaks nothing, should a forecast err.

        Without a promised one the reader's pace is only smoothed, by as much as it needs.
        """
        gap_s = self.promise.largest_gap_s
        return math.inf if gap_s is None else gap_s

    def device_alone(self) -> Candidate:
        """The device answers alone, at its own pace where that breaks no promise."""
        device, promise = self.device, self.promise
        assert device is not None
        first_s = device.prefill_s(self.prompt_tokens) + device.decode_s
        step_s = device.decode_s if self.output_tokens > 1 else 0.0
        within = promise.pace_s < step_s <= promise.gap_limit_s
        pace_s = step_s if within and promise.pace_s else promise.pace_s
        chance = 0.0
        if promise.ttft_s is not None:
            slack_s, pace = promise.ttft_s - first_s, max(pace_s, step_s)
            spread = replace(self.spread, first_token_s=0.0)
            chance = late_chance(spread, slack_s, first_s, self.prompt_tokens, step_s, pace, 0)
        if promise.largest_gap_s is not None and step_s <= promise.largest_gap_s:
            args = (step_s, pace_s, promise.largest_gap_s, self.output_tokens)
            chance = 1 - (1 - chance) * (1 - gap_chance(self.spread, *args))
        has_cloud = self.cloud is not None
        plan = Plan(
            why=f"this device alone needs {first_s:.2f} s" if has_cloud else "",
            mode=Mode.DEVICE_ONLY,
            cloud_tokens=0,
            pace_s=pace_s,
            ready_s=first_s,
            first_token_s=first_s,
            broken=_broken(promise, first_s, "this device", step_s),
            chunk_tokens=device.chunk_tokens,
            expected=Expected(first_s, max(pace_s, step_s), miss_chance=chance),
        )
        late = promise.ttft_s is None and first_s > self._wanted_ttft_s
        return self._judged(plan, "the cloud's first token comes earlier" if late else "")

    def cloud_alone(self) -> Candidate:
        """The cloud makes the whole answer."""
        cloud, promise = self.cloud, self.promise
        assert cloud is not None
        step_s = cloud.step_s if self.output_tokens > 1 else 0.0
        plan = Plan(
            mode=Mode.CLOUD_ONLY,
            cloud_tokens=self.max_tokens,
            pace_s=promise.pace_s,
            first_token_s=cloud.first_token_s,
            broken=_broken(promise, cloud.first_token_s, "the cloud", step_s),
            expected=Expected(
                cloud.first_token_s,
                max(promise.pace_s, step_s),
                cloud_s=self._cloud_s(self.output_tokens),
                cloud_tokens=self.output_tokens,
                miss_chance=self._late_cloud_chance(cloud.first_token_s),
            ),
        )
        why_not = ""
        if self._cap < self.max_tokens and self.device is not None:
            why_not = f"the cloud may make {self._cap} tokens at most"
        return self._judged(plan, why_not)

    def shared(self, keep_ratio: float = 1.0) -> Candidate:
        """The cloud makes the first k tokens and the device the rest."""
        situation = self._situation(keep_ratio)
        pace_s = self._shared_pace_s(situation.device)
        gap_s = self._gap_s
        k, steps = least_cloud_tokens(
            situation, pace_s, gap_s, self.max_tokens, output_tokens=self.output_tokens
        )
        why_not = ""
        if k > self._cap:
            return self._capped(situation, pace_s, steps)
        if k >= self.max_tokens:
            why_not = "this device would not catch up in time"
        elif is_below_pace(situation.device.usual_decode_s, pace_s) and k > self.output_tokens / 2:
            # It would absorb most of the answer to make the rest, if the answer has a rest at all.
            why_not = below_pace("this device", situation.device.usual_decode_s, pace_s)
        plan = replace(self._plan(situation, k, pace_s, gap_s), keep_ratio=keep_ratio)
        return self._judged(plan, why_not, steps)

    def refined(self) -> list[Candidate]:
        """The shared ones with less of the prompt, as far as the least keep ratio allows."""
        least = self.promise.quality_floor
        ratios = sorted({*KEEP_RATIOS, least}, reverse=True)
        return [self.shared(rho) for rho in ratios if least <= rho < 1]

    def in_turns(self) -> Candidate | None:
        """Cloud and device take turns, for a device that cannot hold the pace.

        The cloud bursts ahead and is gone; the device goes on while the reader has tokens in store.
        """
        situation, pace_s = self._situation(1.0), self.promise.pace_s
        device, cloud = situation.device, situation.cloud
        if not is_below_pace(device.usual_decode_s, pace_s) or cloud.step_s > pace_s:
            return None
        if self._shared_pace_s(device) > pace_s or self._cap < self.max_tokens:
            return None
        way_back_s = cloud.first_token_s + RETURN_SLACK_S
        turn = max(_LEAST_TURN_TOKENS, _RETURNS_PER_TURN * math.ceil(way_back_s / device.decode_s))
        gap_s = self._gap_s
        k, steps = least_cloud_tokens(situation, pace_s, gap_s, self.max_tokens, device_tokens=turn)
        plan = self._plan(situation, k, pace_s, gap_s, left=turn // 2)
        made, turns = self._made_in_turns(k, turn, self.output_tokens)
        cloud_s = self._cloud_s(made) + turns * cloud.step_s
        expected = replace(plan.expected, cloud_tokens=made, cloud_s=cloud_s)
        why_not = ""
        if k >= self.max_tokens or made > (1 - _TURNS_SAVE) * self.output_tokens:
            why_not = (
                f"taking turns would leave the cloud {min(made, self.output_tokens)} of "
                f"{self.output_tokens} tokens"
            )
        found = self._judged(replace(plan, turn_tokens=turn, expected=expected), why_not, steps)
        made, turns = self._made_in_turns(k, turn, self._typical_tokens)
        return replace(found, cost_s=self._cloud_s(made) + turns * cloud.step_s)

    def _made_in_turns(self, first: int, turn_tokens: int, output_tokens: int) -> tuple[int, int]:
        """Return how many tokens the cloud makes in turns, and how often it comes back.

        Each time it makes again what the device makes until it has come.
        """
        assert self.device is not None
        assert self.cloud is not None
        decode_s = self.device.decode_s
        rest = max(output_tokens - first, 0)
        turns = math.ceil(rest / turn_tokens)
        wasted = 1 + math.ceil(self.cloud.first_token_s / decode_s)
        made = min(first, output_tokens) + round(rest * (1 - self.promise.pace_s / decode_s))
        return min(made + turns * wasted, output_tokens + wasted), turns

    @property
    def _typical_tokens(self) -> int:
        """The length of most answers: N is a high quantile, which few reach."""
        return max(round(self.output_tokens * _TYPICAL), 1)

    # Parts of these

    def _situation(self, keep_ratio: float) -> Situation:
        assert self.device is not None
        assert self.cloud is not None
        device = self.device
        if keep_ratio < 1:
            device = refined(device, self.prompt_tokens, keep_ratio, self.cloud.first_token_s)
        return Situation(self.prompt_tokens, device, self.cloud, self.spread)

    def _shared_pace_s(self, device: DeviceForecast) -> float:
        """The pace, stretched to the device's step where the promised largest gap allows it."""
        pace_s, step_s = self.promise.pace_s, device.decode_s
        stretched = self.promise.largest_gap_s is not None and pace_s < step_s
        return step_s if stretched and step_s <= self.promise.gap_limit_s else pace_s

    def _plan(
        self,
        situation: Situation,
        k: int,
        pace_s: float,
        gap_s: float,
        *,
        left: int | None = None,
    ) -> Plan:
        """Return the plan with k; `left` tokens are the device's, else all that are expected."""
        cloud, device, promise = situation.cloud, situation.device, self.promise
        ready = situation.ready_s(k)
        first_s = min(cloud.first_token_s, device.prefill_s(self.prompt_tokens) + device.decode_s)
        step_s = cloud.step_s if k > 1 else 0.0
        even_s = max(pace_s, step_s)
        smoothed_s = gap_s if math.isfinite(gap_s) else even_s * PACE_TOLERANCE
        due_s = cloud.first_token_s + k * even_s + max(smoothed_s - even_s, 0.0)
        left = max(self.output_tokens - k - 1, 0) if left is None else left
        prefilled_s = device.prefill_s(self.prompt_tokens + k)
        steps = (self.prompt_tokens, device.decode_s, even_s, left)
        slack_s = due_s - device.decode_s
        chance = max(
            late_chance(self.spread, slack_s - prefilled_s, prefilled_s, *steps),
            # Where the cloud ends last, the prefill's errors do not count.
            late_chance(
                Spread(self.spread.device), slack_s - situation.after_cloud_s(k), 0.0, *steps
            ),
        )
        chance = 1 - (1 - chance) * (1 - self._late_cloud_chance(first_s))
        made = min(k, self.output_tokens)
        return Plan(
            mode=Mode.PD_DEVICE,
            cloud_tokens=k,
            pace_s=pace_s,
            ready_s=ready,
            first_token_s=first_s,
            broken=_broken(promise, first_s, "the cloud", step_s),
            why=_stretched_words(pace_s, promise.pace_s),
            chunk_tokens=device.chunk_tokens,
            expected=Expected(first_s, max(pace_s, step_s), k, self._cloud_s(made), made, chance),
        )

    def _capped(self, situation: Situation, pace_s: float, steps: list[int]) -> Candidate:
        """The cloud makes what its cap allows; the reader waits for the rest, if evenly."""
        k = self._cap
        if k < 1:
            return Candidate(
                Plan(Mode.PD_DEVICE, 0, pace_s), why_not="the cloud may make no token of it"
            )
        plan = self._plan(situation, k, pace_s, self._gap_s)
        cloud, step_s = situation.cloud, situation.device.decode_s
        last = max(self.output_tokens - 1, k)
        slope_s = (plan.ready_s - cloud.first_token_s) / k
        end_s = plan.ready_s + (last - k) * step_s - cloud.first_token_s
        gap_s = max(plan.expected.largest_gap_s, slope_s, end_s / last)
        broken = plan.broken
        if gap_s > self.promise.gap_limit_s + EPSILON_S:
            needed, asked_s = steps[-1], self.promise.gap_limit_s
            words = f"the cloud may make {k} tokens at most, and {needed} would be needed: gaps of "
            broken += (f"{words}{gap_s:.2f} s come; {asked_s:.2f} s was asked for",)
        expected = replace(plan.expected, largest_gap_s=gap_s)
        return self._judged(replace(plan, broken=broken, expected=expected), steps=steps)

    def _late_cloud_chance(self, first_s: float) -> float:
        """The chance that the cloud's first token breaks the promise."""
        ttft_s = self.promise.ttft_s
        if ttft_s is None or first_s > ttft_s:  # then it is broken, not missed
            return 0.0
        spread = replace(self.spread, device=0.0)
        return late_chance(spread, ttft_s - first_s, first_s, self.prompt_tokens, 0.0, 0.0, 0)

    def _cloud_s(self, tokens: int) -> float:
        assert self.cloud is not None
        return self.cloud.first_token_s + max(tokens - 1, 0) * self.cloud.step_s

    def _judged(self, plan: Plan, why_not: str = "", steps: list[int] | None = None) -> Candidate:
        promise, expected = self.promise, plan.expected
        excess = _over(expected.ttft_s, self._wanted_ttft_s) + _over(
            expected.largest_gap_s, promise.gap_limit_s
        )
        named = promise.ttft_s is not None or promise.largest_gap_s is not None
        risk = expected.miss_chance if named else 0.0
        cost_s = 0.0
        if plan.mode is not Mode.DEVICE_ONLY:
            cost_s = self._cloud_s(min(plan.cloud_tokens, self._typical_tokens))
        return Candidate(plan, excess, risk, cost_s, why_not, tuple(steps or ()))


def _over(value_s: float, limit_s: float) -> float:
    """By which share of the limit the value exceeds it; 0 if it does not."""
    if value_s <= limit_s + EPSILON_S or limit_s <= 0:
        return 0.0
    return value_s / limit_s - 1


def _stretched_words(pace_s: float, asked_s: float) -> str:
    if pace_s <= asked_s:
        return ""
    return f"the pace is stretched to {pace_s:.3g} s, which this device can hold"


def _broken(promise: Promise, first_token_s: float, whose: str, step_s: float) -> tuple[str, ...]:
    """Say of each promise that cannot be kept what comes instead."""
    broken = []
    if promise.ttft_s is not None and first_token_s > promise.ttft_s + EPSILON_S:
        broken.append(
            f"the first token comes after {first_token_s:.2f} s; "
            f"{promise.ttft_s:.2f} s was asked for"
        )
    if promise.pace_s and step_s > promise.gap_limit_s + EPSILON_S:
        broken.append(below_pace(whose, step_s, promise.gap_limit_s))
    return tuple(broken)
