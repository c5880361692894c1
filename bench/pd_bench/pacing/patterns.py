"""Arrival patterns: the situations in which answers are paced, drawn at random from a seed."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from pd_bench.pacing.uneven import Unevenness
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.profiles import LINK_PROFILES, LinkProfile, SpeedProfile

__all__ = ["PATTERNS", "Pattern", "Situation"]

_WIFI, _LTE = LINK_PROFILES["wifi"], LINK_PROFILES["lte"]


@dataclass(frozen=True, slots=True)
class Situation:
    """One request and the sides that answer it.

    Attributes:
        seed: of the sides' noise.
        prompt_tokens, answer_tokens: lengths.
        mode: which sides make the answer.
        cloud_tokens: a fixed k; None: the planner's.
        cloud_step_s: mean seconds between the cloud's tokens.
        link: the network.
        unevenness: how the cloud's tokens come.
        device: the device's real speeds.
        believed: what it believes of them before its first answer.
        slows_after_s, slows_by: seconds from the request until the device is slower by a factor.
    """

    seed: int
    prompt_tokens: int
    answer_tokens: int
    mode: Mode
    cloud_tokens: int | None
    cloud_step_s: float
    link: LinkProfile
    unevenness: Unevenness
    device: SpeedProfile
    believed: SpeedProfile
    slows_after_s: float = math.inf
    slows_by: float = 1.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A kind of situation.

    Attributes:
        name: its name in tables.
        what: what happens, in words.
        counts: for the goals, which are for speeds that vary. What comes as a surprise (a pause, a
            device that becomes hot) no controller can spread over the tokens before it.
        draw: (seed, pace_s, noise) to a situation.
    """

    name: str
    what: str
    draw: Callable[[int, float, float], Situation]
    counts: bool = True


def _drawn(
    *,
    mode: Mode = Mode.PD_DEVICE,
    decode: tuple[float, float] = (0.4, 0.9),
    step: tuple[float, float] = (0.14, 0.14),
    fixed: tuple[int, int] | None = None,
    link: LinkProfile = _WIFI,
    flush: tuple[float, float] | None = None,
    pause_at: tuple[int, int] | None = None,
    slows_by: tuple[float, float] | None = None,
) -> Callable[[int, float, float], Situation]:
    """Return a pattern's draw; `decode`, `step` and `flush` are in paces."""

    def draw(seed: int, pace_s: float, noise: float) -> Situation:
        numbers = random.Random(seed)
        prompt = _length(numbers, 800, 64, 4000)
        answer = _length(numbers, 200, 40, 600)
        device = SpeedProfile(
            "drawn",
            "drawn at random",
            1 / math.exp(numbers.uniform(math.log(300), math.log(1500))),
            pace_s * numbers.uniform(*decode),
            spread=noise,
        )
        # A benchmark at the start is as far off as one pass from another.
        off = [max(1 + noise * numbers.gauss(0, 1), 0.3) for _ in range(2)]
        believed = SpeedProfile(
            "believed", "drawn at random", device.prefill_b_s * off[0], device.decode_s * off[1]
        )
        unevenness = Unevenness(
            flush_s=pace_s * numbers.uniform(*flush) if flush else 0.0,
            pause_at=numbers.randint(*pause_at) if pause_at else None,
            pause_s=numbers.uniform(0.5, 3.0) if pause_at else 0.0,
        )
        return Situation(
            seed=seed,
            prompt_tokens=prompt,
            answer_tokens=answer,
            mode=mode,
            cloud_tokens=numbers.randint(*fixed) if fixed else None,
            cloud_step_s=pace_s * numbers.uniform(*step),
            link=link,
            unevenness=unevenness,
            device=device,
            believed=believed,
            slows_after_s=numbers.uniform(0.2, 6.0) if slows_by else math.inf,
            slows_by=numbers.uniform(*slows_by) if slows_by else 1.0,
        )

    return draw


def _length(numbers: random.Random, median: int, least: int, most: int) -> int:
    return min(max(round(median * math.exp(0.8 * numbers.gauss(0, 1))), least), most)


PATTERNS = {
    p.name: p
    for p in (
        Pattern("handoff", "the planner's k, a device faster than the pace, Wi-Fi", _drawn()),
        Pattern("fixed k", "8 to 64 cloud tokens, enough or not", _drawn(fixed=(8, 64))),
        Pattern("slow device", "a device at 0.9 to 1.25 paces", _drawn(decode=(0.9, 1.25))),
        Pattern(
            "device alone",
            "a device at 0.7 to 1.2 paces, no cloud",
            _drawn(mode=Mode.DEVICE_ONLY, decode=(0.7, 1.2)),
        ),
        Pattern(
            "jitter",
            "a cloud alone over LTE, at 0.5 to 1.1 paces",
            _drawn(mode=Mode.CLOUD_ONLY, step=(0.5, 1.1), link=_LTE),
        ),
        Pattern(
            "bursts",
            "a cloud alone behind a proxy that hands on every 4 to 12 paces",
            _drawn(mode=Mode.CLOUD_ONLY, step=(0.3, 0.9), flush=(4, 12)),
            counts=False,
        ),
        Pattern(
            "stalls",
            "the cloud pauses for 0.5 to 3 s within its first 24 tokens; a device is there",
            _drawn(pause_at=(1, 24)),
            counts=False,
        ),
        Pattern(
            "throttling",
            "the device slows down by 1.3 to 2 within 6 s",
            _drawn(slows_by=(1.3, 2.0)),
            counts=False,
        ),
        Pattern(
            "stalls, cloud alone",
            "the cloud pauses for 0.5 to 3 s within its first 24 tokens; nobody is there",
            _drawn(mode=Mode.CLOUD_ONLY, step=(0.3, 0.9), pause_at=(1, 24)),
            counts=False,
        ),
    )
}
