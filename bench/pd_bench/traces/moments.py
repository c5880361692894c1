"""Means, variances and the correlation of a stream of pairs, in constant memory."""

import math

__all__ = ["Moments"]


class Moments:
    """Means, variances and correlation of pairs, without keeping them (Welford).

    Attributes:
        n: number of pairs.
        mean_x, mean_y: their means.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean_x = self.mean_y = 0.0
        self._xx = self._yy = self._xy = 0.0

    def add(self, x: float, y: float = 0.0) -> None:
        """Add a pair."""
        self.n += 1
        dx, dy = x - self.mean_x, y - self.mean_y
        self.mean_x += dx / self.n
        self.mean_y += dy / self.n
        self._xx += dx * (x - self.mean_x)
        self._yy += dy * (y - self.mean_y)
        self._xy += dx * (y - self.mean_y)

    @property
    def variance_x(self) -> float:
        """Population variance of x; 0 without pairs."""
        return self._xx / self.n if self.n else 0.0

    @property
    def variance_y(self) -> float:
        """Population variance of y; 0 without pairs."""
        return self._yy / self.n if self.n else 0.0

    @property
    def correlation(self) -> float:
        """Correlation, from -1 to 1; 0 if x or y does not vary."""
        scale = math.sqrt(self._xx * self._yy)
        return max(-1.0, min(1.0, self._xy / scale)) if scale > 0 else 0.0
