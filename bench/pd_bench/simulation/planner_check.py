"""The planner against hindsight, over random situations.

In each situation the planner sees forecasts and decides. Then the true speeds are drawn, and every
number of cloud tokens is tried on them. The answer's length is known to both, so that only the
choice of k is judged, not the guess of a length.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pd_bench.results.quantiles import quantiles
from pd_bench.simulation.virtual_timeline import CHUNK_TOKENS, Drawn, VirtualTimeline
from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.planning.planner import CloudForecast, Plan, is_below_pace, plan_request
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.spread import Spread

__all__ = ["PlannerCheck", "Situation", "check_planner", "draw_situation"]

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True)
class _Passes:
    """A device's forecast, pass by pass.

    Attributes:
        profile: its speeds.
    """

    profile: SpeedProfile

    @property
    def decode_s(self) -> float:
        return self.profile.decode_s

    @property
    def usual_decode_s(self) -> float:
        return self.profile.decode_s

    @property
    def chunk_tokens(self) -> int:
        return CHUNK_TOKENS

    def prefill_s(self, num_tokens: int) -> float:
        full, rest = divmod(num_tokens, CHUNK_TOKENS)
        return full * self.profile.pass_s(0, CHUNK_TOKENS) + self.profile.pass_s(0, rest)


@dataclass(frozen=True, slots=True)
class Situation:
    """One request, two sides, a promise, and how far off the forecasts are.

    Attributes:
        prompt_tokens: n.
        output_tokens: the answer's length.
        device: the device's speeds, with their spread.
        cloud: the cloud's speeds at its load, over its link.
        jitter: relative standard deviation of the cloud's arrivals.
        promise: to the reader.
    """

    prompt_tokens: int
    output_tokens: int
    device: SpeedProfile
    cloud: CloudForecast
    jitter: float
    promise: Promise

    @property
    def device_is_first(self) -> bool:
        """Whether the device is forecast to make the first token."""
        device = _Passes(self.device)
        alone_s = device.prefill_s(self.prompt_tokens) + device.decode_s
        return alone_s <= self.cloud.first_token_s

    def plan(self) -> Plan:
        """Plan it."""
        return plan_request(
            self.prompt_tokens,
            self.output_tokens,
            self.output_tokens,
            self.promise,
            device=_Passes(self.device),
            cloud=self.cloud,
            spread=Spread(self.device.spread, self.jitter * self.cloud.first_token_s),
        )

    def timeline(self, drawn: Drawn) -> VirtualTimeline:
        """Return its course with these factors."""
        cloud = self.cloud
        return VirtualTimeline(
            self.device,
            cloud.first_token_s,
            cloud.step_s,
            self.prompt_tokens,
            self.output_tokens,
            drawn,
        )


def draw_situation(rng: np.random.Generator) -> Situation:
    """Draw a situation: from a phone to a workstation, from an idle cloud to a full one."""

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    pace_s = float(rng.choice([0.05, 0.1, 0.2]))
    rtt_s, load = between(0.002, 0.15), between(1.0, 8.0)
    prompt = round(between(16, 8192))
    device = SpeedProfile(
        "drawn",
        "drawn",
        1 / between(100, 4000),
        between(0.01, 0.12),
        spread=float(rng.choice([0.0, 0.02, 0.05, 0.1])),
    )
    ttft_s = float(rng.choice([0.5, 1.0, 2.0, 4.0])) if rng.random() < 0.7 else None
    return Situation(
        prompt,
        round(between(16, 512)),
        device,
        CloudForecast(rtt_s + load * prompt / 20_000, between(0.005, 0.06)),
        float(rng.choice([0.0, 0.02, 0.05])),
        Promise(pace_s, ttft_s, pace_s * float(rng.choice([1.25, 1.5, 2.0, 3.0]))),
    )


@dataclass(slots=True)
class PlannerCheck:
    """What was found.

    Attributes:
        situations: how many were drawn.
        kept: plans that said that the promise is kept.
        missed: those of them that did not keep it.
        infeasible: situations in which no number of cloud tokens keeps the promise, as forecast.
        infeasible_missed: plans that said so where one does.
        in_turns: plans in which both sides take turns, whose k is of another kind: not compared.
        planned_tokens, least_tokens: the cloud's tokens of all compared situations.
        plan_s: seconds of each plan.
        modes: how often each mode was planned.
    """

    situations: int = 0
    kept: int = 0
    missed: int = 0
    infeasible: int = 0
    infeasible_missed: int = 0
    in_turns: int = 0
    planned_tokens: int = 0
    least_tokens: int = 0
    plan_s: list[float] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)

    @property
    def miss_rate(self) -> float:
        """The share of the plans that did not keep what they said they would."""
        return self.missed / max(self.kept, 1)

    @property
    def extra_cloud_tokens(self) -> float:
        """By which share more tokens were planned than would have been enough."""
        return self.planned_tokens / max(self.least_tokens, 1) - 1

    def document(self) -> dict[str, object]:
        """Return the figures."""
        p50, p99 = quantiles(np.array(self.plan_s), (0.5, 0.99)).tolist()
        return {
            "situations": self.situations,
            "miss_rate": self.miss_rate,
            "extra_cloud_tokens": self.extra_cloud_tokens,
            "infeasible_missed": self.infeasible_missed,
            "infeasible": self.infeasible,
            "plan_s": {"p50": p50, "p99": p99},
            "kept": self.kept,
            "missed": self.missed,
            "in_turns": self.in_turns,
            "planned_tokens": self.planned_tokens,
            "least_tokens": self.least_tokens,
            "modes": dict(self.modes),
        }


def check_planner(num_situations: int, seed: int, progress: Callable[[int], None]) -> PlannerCheck:
    """Draw situations, plan each, and try every k in hindsight.

    Args:
        num_situations: how many.
        seed: of all draws.
        progress: called with the number of situations done.
    """
    rng = np.random.default_rng(seed)
    found = PlannerCheck()
    for done in range(num_situations):
        situation = draw_situation(rng)
        began_s = time.thread_time()
        plan = situation.plan()
        found.plan_s.append(time.thread_time() - began_s)
        args = (rng, situation.prompt_tokens, situation.output_tokens)
        drawn = Drawn.of(*args, situation.device.spread, situation.jitter)
        _judge(found, situation, plan, drawn)
        progress(done + 1)
    return found


def _judge(found: PlannerCheck, situation: Situation, plan: Plan, drawn: Drawn) -> None:
    found.situations += 1
    found.modes[plan.mode.value] += 1
    exact = Drawn.of(
        np.random.default_rng(0), situation.prompt_tokens, situation.output_tokens, 0.0, 0.0
    )
    possible = _least(situation, situation.timeline(exact), plan.pace_s) is not None
    if not possible:
        found.infeasible += 1
    if plan.broken:
        found.infeasible_missed += possible
        return
    if plan.takes_turns:
        found.in_turns += 1
        return
    timeline = situation.timeline(drawn)
    found.kept += 1
    if not _keeps(situation, timeline, _tokens(situation, plan), plan.pace_s):
        found.missed += 1
        return
    least = _least(situation, timeline, plan.pace_s)
    assert least is not None, "the plan's own number kept it"
    found.planned_tokens += _tokens(situation, plan)
    found.least_tokens += least


def _tokens(situation: Situation, plan: Plan) -> int:
    return 0 if plan.mode is Mode.DEVICE_ONLY else min(plan.cloud_tokens, situation.output_tokens)


def _keeps(situation: Situation, timeline: VirtualTimeline, k: int, pace_s: float) -> bool:
    ttft_s = situation.promise.ttft_s
    if ttft_s is None:  # the first token may come when the side comes that was forecast to be first
        late = k == 0 and not situation.device_is_first
    else:
        first_s = min(timeline.first_s, timeline.alone_s) if k else timeline.alone_s
        late = first_s > ttft_s * _ROUNDING
    if late:
        return False
    return timeline.worst_gap_s(k, pace_s) <= situation.promise.gap_limit_s * _ROUNDING


def _least(situation: Situation, timeline: VirtualTimeline, pace_s: float) -> int | None:
    """Return the least number of cloud tokens that keeps the promise, by trying each.

    A device below the pace takes part only if it makes the larger half (decision 0029).
    """
    num, below = situation.output_tokens, is_below_pace(situation.device.decode_s, pace_s)
    tries = [*range(num // 2 + 1), num] if below else range(num + 1)
    return next((k for k in tries if _keeps(situation, timeline, k, pace_s)), None)
