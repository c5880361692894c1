"""Axes of a chart: round ticks, linear or logarithmic, and the position of a value."""

import math
from dataclasses import dataclass

__all__ = ["Axis", "fitted_axis"]

_WANTED_TICKS = 5
_FACTORS = (1, 2, 5, 10)
_DECADES = 3  # a longer logarithmic axis has only one tick a decade


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from low to high.

    Attributes:
        low: value at its beginning.
        high: value at its end; above low.
        log: whether equal distances are equal factors.
    """

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """The position of a value: 0 at the beginning, 1 at the end; beyond them it is clipped."""
        if self.log:
            value = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            value = (value - self.low) / (self.high - self.low)
        return min(max(value, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Return round values from the beginning to the end."""
        return self._log_ticks() if self.log else self._linear_ticks()

    def _linear_ticks(self) -> list[float]:
        rough = (self.high - self.low) / _WANTED_TICKS
        base = 10.0 ** math.floor(math.log10(rough))
        step = next(base * f for f in _FACTORS if base * f >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1,) if math.log10(self.high / self.low) > _DECADES else (1, 2, 5)
        values = [10.0**decade * f for decade in decades for f in factors]
        return [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]

    @staticmethod
    def label(value: float) -> str:
        """Return a tick's label."""
        return f"{value:.6g}"


def fitted_axis(low: float, high: float, *, log: bool = False) -> Axis:
    """Return an axis that includes the values from low to high, with round ends.

    A logarithmic axis begins above 0; values that are not above 0 are drawn at its beginning.
    """
    if not log:
        low = min(low, 0.0)
        return Axis(low, high if high > low else low + 1.0)
    if high <= 0:
        return Axis(0.1, 1.0, log=True)
    low = max(low, high / 1e6)
    if high / low < 4:  # at least two ticks
        low, high = low / 2, high * 2
    return Axis(low / 1.1, high * 1.1, log=True)
