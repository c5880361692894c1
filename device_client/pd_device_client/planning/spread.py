"""How far off forecasts may be, and the chance that a promise is missed for it.

Passes and steps err each for itself, so their sum errs by less than they do: a prefill of many
passes is known better than one pass. What is late by chance is taken as normal; a promise may be
missed by it once in a hundred answers.
"""

import math
from dataclasses import dataclass

__all__ = [
    "MISS_CHANCE",
    "NO_SPREAD",
    "USUAL_PASS_TOKENS",
    "Spread",
    "gap_chance",
    "late_chance",
    "margin_s",
]

MISS_CHANCE = 0.01
"""A plan may miss its promise by chance this often."""

USUAL_PASS_TOKENS = 128
"""Tokens of a prefill's pass, where the engine is not known."""

_DEVIATIONS = 2.3263  # a normal value lies beyond so many only with MISS_CHANCE


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations.

    Attributes:
        device: of each pass and each step of the device, relative to its seconds.
        first_token_s: of the cloud's first token, in seconds.
        guard: by how many of them the forecast of the device's prefill is later than usual.
        pass_tokens: tokens of a prefill's pass.
    """

    device: float = 0.0
    first_token_s: float = 0.0
    guard: float = 0.0
    pass_tokens: int = USUAL_PASS_TOKENS


NO_SPREAD = Spread()
"""Forecasts that are taken as exact."""


def _deviations_s(spread: Spread, ready_s: float, prompt_tokens: int) -> tuple[float, float]:
    """Return the deviations of the prefill's end, and of that against the first token."""
    passes = max(prompt_tokens / spread.pass_tokens, 1.0)
    prefill = spread.device * ready_s / math.sqrt(passes)
    return prefill, math.hypot(prefill, spread.first_token_s)


def margin_s(
    spread: Spread,
    ready_s: float,
    prompt_tokens: int,
    step_s: float,
    pace_s: float,
    device_tokens: int,
) -> float:
    """Seconds by which the device must be early to be late only with MISS_CHANCE.

    Args:
        spread: of the forecasts.
        ready_s: R, from submit.
        prompt_tokens: what the device prefills until then.
        step_s: D.
        pace_s: tau.
        device_tokens: how many tokens it makes afterwards.
    """
    prefill, ready = _deviations_s(spread, ready_s, prompt_tokens)
    step = spread.device * step_s
    j = _worst_token(step, pace_s - step_s, device_tokens)
    late_s = max(
        _DEVIATIONS * ready,
        _DEVIATIONS * math.sqrt(ready * ready + j * step * step) - j * max(pace_s - step_s, 0.0),
    )
    return max(late_s - spread.guard * prefill, 0.0)


def late_chance(
    spread: Spread,
    slack_s: float,
    ready_s: float,
    prompt_tokens: int,
    step_s: float,
    pace_s: float,
    device_tokens: int,
) -> float:
    """Return the chance that a gap is longer than it may be.

    Args:
        spread: of the forecasts.
        slack_s: how much later the device's first token may come than forecast.
        ready_s, prompt_tokens, step_s, pace_s, device_tokens: as in `margin_s`.
    """
    prefill, ready = _deviations_s(spread, ready_s, prompt_tokens)
    slack_s += spread.guard * prefill
    step = spread.device * step_s
    gain_s = pace_s - step_s
    worst = 0.0
    for j in {0, _worst_token(step, gain_s, device_tokens), max(device_tokens, 0)}:
        deviation = math.sqrt(ready * ready + j * step * step)
        worst = max(worst, _beyond(slack_s + j * gain_s, deviation))
    return worst


def gap_chance(spread: Spread, step_s: float, pace_s: float, gap_s: float, tokens: int) -> float:
    """Return the chance that a device without a store of tokens ahead exceeds a gap.

    Its steps are shown as they come until it has gained a store on the pace.

    Args:
        spread: of the forecasts.
        step_s: D.
        pace_s: tau.
        gap_s: the longest gap allowed.
        tokens: how many the device makes.
    """
    deviation = spread.device * step_s
    exposed = float(max(tokens, 0))
    if step_s < pace_s:
        exposed = min(exposed, 1 + 3 * deviation / (pace_s - step_s))
    return float(1 - (1 - _beyond(gap_s - step_s, deviation)) ** exposed)


def _worst_token(step_deviation_s: float, gain_s: float, most: int) -> int:
    """The token at which chance has grown most against what is gained with each token."""
    most = max(most, 0)
    if gain_s <= 0:
        return most
    return min(int((_DEVIATIONS * step_deviation_s / (2 * gain_s)) ** 2), most)


def _beyond(slack_s: float, deviation_s: float) -> float:
    """The chance that a normal error of this deviation exceeds the slack."""
    if deviation_s <= 0:
        return 0.0 if slack_s >= -1e-9 else 1.0
    return 0.5 * math.erfc(slack_s / (deviation_s * math.sqrt(2)))
