"""A summary of many values in bounded memory.

The first values are kept as they are, and their quantiles are exact. When there are too many, they
become counts of buckets whose bounds grow by a constant factor, and a quantile is the middle of its
bucket: at most RELATIVE_ERROR off for any distribution (the idea of DDSketch, VLDB 2019).
Count, mean and maximum stay exact.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pd_bench.results.quantiles import quantiles
from pd_bench.results.result import Distribution

__all__ = ["MAX_EXACT", "RELATIVE_ERROR", "QuantileSketch"]

MAX_EXACT: Final = 16_384
"""Up to this many values are kept as they are."""

RELATIVE_ERROR: Final = 0.001
"""Relative error of a quantile, once there are more."""

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LEAST = 1e-9  # a nanosecond: shorter ones count as 0


class QuantileSketch:
    """Summarises values of 0 or more."""

    def __init__(self) -> None:
        self._exact: list[NDArray[np.float64]] | None = []
        self._buckets: dict[int, int] = {}
        self._num_zeros = 0
        self._sum = 0.0
        self._max = 0.0
        self.count = 0

    def add(self, values: ArrayLike) -> None:
        """Add one value, or an array of them."""
        found = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if not len(found):
            return
        self.count += len(found)
        self._sum += float(found.sum())
        self._max = max(self._max, float(found.max()))
        if self._exact is None:
            self._count(found)
            return
        self._exact.append(found)
        if self.count > MAX_EXACT:
            for kept in self._exact:
                self._count(kept)
            self._exact = None

    @property
    def num_buckets(self) -> int:
        """Buckets in use; 0 while the values are kept as they are."""
        return len(self._buckets)

    def _count(self, values: NDArray[np.float64]) -> None:
        above = values[values > _LEAST]
        self._num_zeros += len(values) - len(above)
        indices = np.ceil(np.log(above) / math.log(_GROWTH)).astype(np.int64)
        for index, count in zip(*np.unique(indices, return_counts=True), strict=True):
            self._buckets[int(index)] = self._buckets.get(int(index), 0) + int(count)

    def quantiles(self, shares: ArrayLike) -> list[float]:
        """Return the values below which these shares (0..1) of all values lie; none: nothing."""
        wanted = np.asarray(shares, dtype=np.float64)
        if not self.count:
            return []
        if self._exact is not None:
            # Via percent, so that rounding is as in existing documents.
            found = quantiles(np.concatenate(self._exact), wanted * 100 / 100)
            return [float(value) for value in found]
        indices = sorted(self._buckets)
        ends = self._num_zeros + np.cumsum([self._buckets[index] for index in indices])
        places = np.searchsorted(ends, wanted * (self.count - 1), side="right")
        return [self._middle(indices, rank, int(place))
                for rank, place in zip(wanted * (self.count - 1), places, strict=True)]  # fmt: skip

    def _middle(self, indices: list[int], rank: float, place: int) -> float:
        if rank < self._num_zeros:
            return 0.0
        if place >= len(indices):
            return self._max
        return min(2 * _GROWTH ** indices[place] / (_GROWTH + 1), self._max)

    def distribution(self) -> Distribution:
        """Return the figures of a result document."""
        if not self.count:
            return Distribution.of(())
        p50, p90, p99 = self.quantiles((0.5, 0.9, 0.99))
        return Distribution(
            count=self.count, mean=self._sum / self.count, p50=p50, p90=p90, p99=p99, max=self._max
        )
