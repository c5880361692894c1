"""The speed controller: the smallest possible largest gap (DESIGN 3).

Let a(i) be the predicted instant at which position i becomes available. Among all schedules that
show no token early, the smallest possible largest gap from the last shown token n on is the
steepest line from (n, d(n)) to any future arrival:

    tau* = max over i > n of (a(i) - d(n)) / (i - n)
    next gap = max(tau_target, tau*)

a() is piecewise linear: the cloud's tail, the jump at the handoff, the device's line. Along one
line the slope is monotone in i, so its two ends suffice and a gap costs O(1).
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Arrivals", "SpeedController", "steepest_slope_s"]

# An event loop sleeps in whole milliseconds, rounded up, and may run other tasks first.
_TIMER_GRAIN_S = 0.002
_FORGIVEN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One linear piece of the forecast: positions first .. last arrive step_s apart.

    Attributes:
        first: first position.
        last: last position, first or later.
        at_s: the instant at which `first` becomes available.
        step_s: seconds from each position to the next.
    """

    first: int
    last: int
    at_s: float
    step_s: float

    def __post_init__(self) -> None:
        assert self.last >= self.first, "an empty piece"

    def available_s(self, position: int) -> float:
        """The instant at which `position` becomes available."""
        return self.at_s + (position - self.first) * self.step_s


def steepest_slope_s(position: int, shown_s: float, forecast: Iterable[Arrivals]) -> float:
    """Return tau*: seconds a token, from the last shown position to the worst future arrival.

    Args:
        position: n, the position shown last.
        shown_s: d(n), when it was shown.
        forecast: pieces of a(); parts at or before `position` do not count.

    Returns:
        The steepest slope; 0 when nothing is left to come late.
    """
    steepest = 0.0
    for piece in forecast:
        last = piece.last
        if last <= position:
            continue
        for end in (max(piece.first, position + 1), last):
            slope = (piece.available_s(end) - shown_s) / (end - position)
            if slope > steepest:
                steepest = slope
    return steepest


class SpeedController:
    """Paces one answer.

    After a late token the next gap is still the target: d(n) is when token n really was shown, so
    lost time is never made up by a burst. Only the timer's grain is ignored; otherwise the fraction
    of a millisecond that each wake-up is late would add to the pace.

    Args:
        pace_s: tau_target, the gap asked for.
    """

    __slots__ = ("_grain_s", "pace_s")

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self._grain_s = min(_TIMER_GRAIN_S, _FORGIVEN_SHARE * pace_s)

    def counted_s(self, due_s: float | None, now_s: float) -> float:
        """Return d(n) of a token shown now: the instant from which the next gap counts.

        Args:
            due_s: the instant for which it was scheduled; None when it was not.
            now_s: the present time.

        Returns:
            due_s if the token is late by at most the timer's grain, else now_s.
        """
        if due_s is not None and 0.0 <= now_s - due_s <= self._grain_s:
            return due_s
        return now_s

    def next_gap_s(self, position: int, shown_s: float, forecast: Iterable[Arrivals]) -> float:
        """Return the gap to leave after `position`, shown at `shown_s`."""
        return max(self.pace_s, steepest_slope_s(position, shown_s, forecast))
