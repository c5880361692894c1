"""What forecasts of a device's ready time were off by, by how many passes were to come.

Each prefill is judged when it has ended, with the decode step after it: from its start, and from
where 1, 2, 4, 8, ... passes were left. The forecast of a whole prompt and its renewals on the way
have quantiles of their own, since on the way it is known how the machine is now. Nothing is assumed
of how passes are distributed, or of how long a busy spell lasts; the oldest errors are forgotten.
"""

import math
from statistics import NormalDist

from pd_device_client.planning.speeds.ratios import GUARD_QUANTILE, Ratios

__all__ = ["ForecastErrors"]

_CLASSES = 6  # by passes to come: 1, 2 or 3, 4 to 7, ..., 32 or more
_WINDOW = 64
_ENOUGH = 9  # the largest of so many is exceeded by the next one in one case of ten
_NEAREST = sorted(range(1 - _CLASSES, _CLASSES), key=abs)
_GUARD_Z = NormalDist().inv_cdf(GUARD_QUANTILE)


class ForecastErrors:
    """The last ratios of what prefills took to what they were forecast to take."""

    __slots__ = ("_end", "_from_start", "_on_the_way", "_passes")

    def __init__(self) -> None:
        self._from_start = [Ratios(_WINDOW) for _ in range(_CLASSES)]
        self._on_the_way = [Ratios(_WINDOW) for _ in range(_CLASSES)]
        self._passes: list[tuple[float, float, float]] = []  # of the present prefill
        self._end = 0  # tokens in the cache after it

    def copy(self) -> "ForecastErrors":
        """Return one that learns apart from this one."""
        twin = ForecastErrors()
        twin._from_start = [errors.copy() for errors in self._from_start]
        twin._on_the_way = [errors.copy() for errors in self._on_the_way]
        twin._passes, twin._end = self._passes.copy(), self._end
        return twin

    def passed(
        self, first_position: int, num_tokens: int, expected_s: float, took_s: float, level: float
    ) -> None:
        """Add a prefill pass; one that does not continue the last one begins a new prefill.

        Args:
            first_position: tokens in the cache before it.
            num_tokens: its tokens.
            expected_s: what the profile said of it.
            took_s: what it took.
            level: by which forecasts multiplied what the profile said, when it began.
        """
        if first_position != self._end:
            self._passes.clear()
        self._passes.append((expected_s, took_s, level))
        self._end = first_position + num_tokens

    def decoded(self, first_position: int, forecast_s: float, took_s: float) -> None:
        """Add a decode step; the first one after a prefill shows how good its forecasts were.

        Args:
            first_position: tokens in the cache before it.
            forecast_s: its part of the forecast of a ready time.
            took_s: what it took.
        """
        if self._passes:
            if first_position == self._end:
                self._judge(took_s - forecast_s)
            self._passes.clear()

    def broke_off(self) -> None:
        """The present prefill cannot be judged."""
        self._passes.clear()
        self._end = -1

    def forget(self, count: int) -> None:
        """Drop the oldest errors."""
        for errors in (*self._from_start, *self._on_the_way):
            errors.forget(count)

    def factor(self, done: int, num_passes: int, q: float, spread: float) -> float:
        """By what to multiply a forecast, so that it holds in a share `q` of the cases.

        Args:
            done: tokens in the cache; those of the present prefill make it a renewed forecast.
            num_passes: to come.
            q: above 0 and below 1.
            spread: relative standard deviation of one pass, as far as the profile knows; taken
                while too few forecasts were judged.
        """
        renewed = bool(self._passes) and done == self._end
        own = _class(num_passes)
        factor = self._quantile(renewed, own, q, spread)
        beyond = num_passes / (1 << own) - 1  # between two classes
        if 0 < beyond < 1:
            factor += beyond * (self._quantile(renewed, own + 1, q, spread) - factor)
        return factor

    def _quantile(self, renewed: bool, own: int, q: float, spread: float) -> float:
        both = self._on_the_way, self._from_start
        for classes in both if renewed else both[::-1]:
            for step in _NEAREST:
                if 0 <= own + step < _CLASSES and classes[own + step].num_values >= _ENOUGH:
                    errors = classes[own + step]
                    return errors.guard if q == GUARD_QUANTILE else errors.quantile(q)
        if spread == 0:
            return 1.0
        z = _GUARD_Z if q == GUARD_QUANTILE else NormalDist().inv_cdf(q)
        return max(1 + z * spread / math.sqrt(1 << own), 0.0)

    def _judge(self, late_s: float) -> None:
        """Judge all forecasts of the prefill; its decode step was late by `late_s`."""
        expected_s, took_s = 0.0, late_s
        num_passes = len(self._passes)
        for left, (pass_expected_s, pass_took_s, level) in enumerate(reversed(self._passes), 1):
            expected_s += pass_expected_s
            took_s += pass_took_s
            told_s = expected_s * level
            if left == num_passes:
                self._from_start[_class(left)].add(max(took_s, 0.0), told_s)
            elif left & (left - 1) == 0:
                self._on_the_way[_class(left)].add(max(took_s, 0.0), told_s)


def _class(num_passes: int) -> int:
    return min(max(num_passes, 1).bit_length(), _CLASSES) - 1
