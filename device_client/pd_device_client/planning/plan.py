"""A request's plan: which side makes what, what the reader may expect, and what it costs."""

from dataclasses import dataclass

from pd_device_client.contract.ask import Mode

__all__ = ["PACE_TOLERANCE", "RETURN_SLACK_S", "Expected", "Plan", "below_pace", "is_below_pace"]

PACE_TOLERANCE = 1.25
"""A gap up to this factor over the pace is only smoothed."""

RETURN_SLACK_S = 1.0
"""How much later than forecast a cloud that is called again may come: its load may have grown."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plan expects.

    Attributes:
        ttft_s: the first token, from submit.
        largest_gap_s: the longest gap between two shown tokens.
        handoff: the first position that the device makes after the cloud; None without one.
        cloud_s: seconds for which the request holds the cloud, prefill included.
        cloud_tokens: tokens that the cloud makes of an answer of the expected length.
        miss_chance: that the device is later than the promise allows, by chance.
    """

    ttft_s: float = 0.0
    largest_gap_s: float = 0.0
    handoff: int | None = None
    cloud_s: float = 0.0
    cloud_tokens: int = 0
    miss_chance: float = 0.0


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
        turn_tokens: how many tokens the device makes before the cloud comes back for the next ones;
            0: the device makes the whole rest.
        chunk_tokens: tokens of each pass of the device's prefill; None: all in one, or unknown.
        expected: what comes of it.
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
    turn_tokens: int = 0
    chunk_tokens: int | None = None
    expected: Expected = Expected()

    @property
    def takes_turns(self) -> bool:
        """Whether cloud and device take turns after the handoff."""
        return self.turn_tokens > 0


def is_below_pace(step_s: float, pace_s: float) -> bool:
    """Whether a side's tokens come too slowly for the pace, by more than is smoothed."""
    return step_s > pace_s * PACE_TOLERANCE > 0


def below_pace(whose: str, step_s: float, pace_s: float) -> str:
    """Say that a side makes tokens more slowly than they should be shown."""
    made, asked = (
        f"{rate:.3g}" if rate < 999.5 else f"{rate:.0f}" for rate in (1 / step_s, 1 / pace_s)
    )
    return f"{whose} makes {made} tokens a second; {asked} were asked for"
