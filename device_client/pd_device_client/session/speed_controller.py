"""The speed controller: the smallest possible largest gap (DESIGN 3).

Let a(i) be the predicted instant at which position i becomes available. Among all schedules that
show no token early, the smallest possible largest gap from the last shown token n on is the
steepest line from (n, d(n)) to any future arrival:

    tau* = max over i > n of (a(i) - d(n)) / (i - n)
    next gap = max(tau_target, tau*)

a() is piecewise linear: the cloud's tail, the jump at the handoff, the device's line. Along one
line the slope is monotone in i, so its two ends suffice and a gap costs O(1). Instants are not
known but forecast; `SpeedController.next_gap_s` says what becomes of their spread.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Arrivals", "SpeedController", "steepest_slope_s"]

# An event loop sleeps in whole milliseconds, rounded up, and may run other tasks first.
_TIMER_GRAIN_S = 0.002
_FORGIVEN_SHARE = 0.1
# Reserves, in standard deviations: for an arrival `count` tokens ahead, and where it costs no gap.
_RESERVES = (0.0, 0.0, *(NormalDist().inv_cdf(1 - 1 / count) for count in range(2, 513)))
_FREE_RESERVE = 1.5
_MOST_RESERVE = max(_RESERVES)
_DEAREST = 1.1  # a reserve makes a gap longer by this factor at most


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One linear piece of the forecast: positions first .. last arrive step_s apart.

    Attributes:
        first: first position.
        last: last position, first or later.
        at_s: the instant at which `first` becomes available.
        step_s: seconds from each position to the next.
        at_sd_s: standard deviation of `at_s`.
        step_sd_s: standard deviation of each step, independent of the others.
    """

    first: int
    last: int
    at_s: float
    step_s: float
    at_sd_s: float = 0.0
    step_sd_s: float = 0.0

    def __post_init__(self) -> None:
        assert self.last >= self.first, "an empty piece"

    def available_s(self, position: int) -> float:
        """The instant at which `position` becomes available."""
        return self.at_s + (position - self.first) * self.step_s

    def spread_s(self, position: int) -> float:
        """The standard deviation of that instant."""
        return math.sqrt(self.at_sd_s**2 + (position - self.first) * self.step_sd_s**2)


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

    __slots__ = ("_grain_s", "_widest_s", "pace_s")

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self._widest_s = 0.0  # the largest gap so far
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

    def next_gap_s(
        self, position: int, shown_s: float, forecast: Sequence[Arrivals], *, helped: bool = False
    ) -> float:
        """Return the gap to leave after `position`, shown at `shown_s`.

        Where the forecast is sure, that is tau*, or the pace if it is longer. Elsewhere a reserve
        is laid by: m tokens at even gaps g, then an arrival x, have a largest gap of
        g + max(x - m g, 0), whose mean is smallest where x is later than m g with probability
        1 / m. So each arrival counts at its quantile 1 - 1 / m, but for at most a tenth of the gap.
        Up to the largest gap that the reader has already had, a reserve costs nothing but delay.

        Args:
            position: n, the position shown last.
            shown_s: d(n), when it was shown.
            forecast: pieces of a(), in order.
            helped: another side would step in for one that is late, so that only reserves that
                cost nothing but delay are worth it.
        """
        pace_s = self.pace_s
        if all(_is_easy(piece, position, shown_s, pace_s) for piece in forecast):
            self._widest_s = max(self._widest_s, pace_s)
            return pace_s
        sure_s = max(pace_s, steepest_slope_s(position, shown_s, forecast))
        worth_s = free_s = 0.0
        for piece in forecast:
            for end in _checked(piece, position):
                count, spread_s = end - position, piece.spread_s(end)
                late_s = piece.available_s(end) - shown_s
                reserve = _RESERVES[min(count, len(_RESERVES) - 1)]
                worth_s = max(worth_s, (late_s + reserve * spread_s) / count)
                free_s = max(free_s, (late_s + _FREE_RESERVE * spread_s) / count)
        paid_s = sure_s if helped else min(worth_s, _DEAREST * sure_s)
        gap_s = max(sure_s, paid_s, min(free_s, self._widest_s))
        self._widest_s = max(self._widest_s, gap_s)
        return gap_s


def _checked(piece: Arrivals, position: int) -> Iterator[int]:
    """Yield the positions of a piece to look at: ever further apart, and the last.

    Instants bend along a piece where their spread grows, so its ends alone do not suffice.
    """
    end, stride = max(piece.first, position + 1), 1
    while end < piece.last:
        yield end
        end, stride = end + stride, 2 * stride
    if piece.last > position:
        yield piece.last


def _is_easy(piece: Arrivals, position: int, shown_s: float, pace_s: float) -> bool:
    """Whether the pace alone covers all of a piece, with the largest reserve.

    With z that reserve, the piece's j-th instant is at most at_s + j step_s + z (at_sd_s +
    sqrt(j) step_sd_s), and z s sqrt(j) - j spare is at most (z s)^2 / (4 spare).
    """
    if piece.last <= position:
        return True
    if piece.first <= position:
        return False  # in part shown
    spare_s = pace_s - piece.step_s
    if spare_s <= 0.0:
        return False
    wander_s = _MOST_RESERVE * piece.step_sd_s
    latest_s = piece.at_s + _MOST_RESERVE * piece.at_sd_s + wander_s * wander_s / (4 * spare_s)
    return latest_s <= shown_s + (piece.first - position) * pace_s
