"""The last ratios of observed to predicted time, and their quantiles."""

import bisect
import itertools
import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["GUARD_QUANTILE", "Outlook", "Ratios"]

GUARD_QUANTILE = 0.9
"""The quantile of past ratios with which a forecast guards a promise."""

_GUARD_Z = NormalDist().inv_cdf(GUARD_QUANTILE)
_WINDOW = 32
_GAIN = 0.2  # of the latest ratio in the level
_NEWEST = 6  # observations
_BY_CHANCE = 2.5  # standard deviations
_PRIOR = 1  # observations of the usual ratio, in the mean


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the next ratios of observed to predicted time will be.

    Attributes:
        mean: their mean.
        spread: the standard deviation of one.
        drift: the standard deviation of the mean, an error that all share.
    """

    mean: float
    spread: float
    drift: float


class Ratios:
    """The last ratios of observed to predicted time for one kind of work.

    Args:
        window: how many are kept.

    Attributes:
        guard: their GUARD_QUANTILE; 1 before the first observation.
        level: their moving average, which follows a change within a few observations.
    """

    __slots__ = ("_ordered", "_seen", "_values", "_window", "guard", "level")

    def __init__(self, window: int = _WINDOW) -> None:
        self.guard = 1.0
        self.level = 1.0
        self._window = window
        self._seen = 0
        self._values: deque[float] = deque()
        self._ordered: list[float] = []  # sorted: read far more often than added to

    def add(self, observed_s: float, predicted_s: float) -> None:
        """Add one observation; a prediction of zero is ignored."""
        if predicted_s <= 0:
            return
        values, ordered = self._values, self._ordered
        if len(values) == self._window:
            del ordered[bisect.bisect_left(ordered, values.popleft())]
        ratio = observed_s / predicted_s
        values.append(ratio)
        bisect.insort(ordered, ratio)
        size = len(ordered)  # as quantile(GUARD_QUANTILE), without a call
        self.guard = ordered[min(int(GUARD_QUANTILE * size), size - 1)]
        self._seen = seen = self._seen + 1
        self.level += (1 / seen if seen * _GAIN < 1 else _GAIN) * (ratio - self.level)

    def copy(self) -> "Ratios":
        """Return one that learns apart from this one."""
        twin = Ratios(self._window)
        twin.guard, twin.level, twin._seen = self.guard, self.level, self._seen
        twin._values, twin._ordered = self._values.copy(), self._ordered.copy()
        return twin

    def forget(self, count: int) -> None:
        """Drop the oldest observations; the level falls back to the median of the rest."""
        for _ in range(min(count, len(self._values))):
            del self._ordered[bisect.bisect_left(self._ordered, self._values.popleft())]
        self.guard = self.quantile(GUARD_QUANTILE)
        self.level = self.quantile(0.5)
        self._seen = len(self._values)

    @property
    def num_values(self) -> int:
        """Observations in the window."""
        return len(self._ordered)

    def outlook(self, usual: float = 1.0) -> Outlook:
        """What the next ratios will be, if `usual` is what they were expected to be at first.

        No spread is feared before there was any. The mean of the newest counts alone where it
        differs from the window's by more than chance: a device that has become hot is as slow as it
        is now.
        """
        values, count = self._values, len(self._values)
        mean = (sum(values) + _PRIOR * usual) / (count + _PRIOR)
        # Not from a running sum of squares: its rounding would be a spread of its own.
        squares = sum([(value - mean) * (value - mean) for value in values])
        spread = math.sqrt(squares / (count + _PRIOR))
        if count >= 2 * _NEWEST:
            newest = sum(itertools.islice(reversed(values), _NEWEST)) / _NEWEST
            if abs(newest - mean) > _BY_CHANCE * spread / math.sqrt(_NEWEST):
                mean, count = newest, _NEWEST
        return Outlook(mean, spread, spread / math.sqrt(count + _PRIOR))

    @property
    def upper_spread(self) -> float:
        """The standard deviation by which they exceed their median; few stalls count little."""
        return (self.guard - self.quantile(0.5)) / _GUARD_Z

    @property
    def largest(self) -> float:
        """The largest in the window; 0 before the first observation."""
        return self._ordered[-1] if self._ordered else 0.0

    def quantile(self, q: float) -> float:
        """The q-quantile of the window (nearest rank); 1 before the first observation."""
        ordered = self._ordered
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 1.0
