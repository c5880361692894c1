"""Distributions of whole numbers in memory that grows with their variety, not their count."""

import math
from collections import Counter

from pd_bench.results.result import Distribution

__all__ = ["LengthCounts"]


class LengthCounts:
    """Counts lengths in tokens; its percentiles are exact."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Take in one length."""
        self._counts[length] += 1

    def distribution(self) -> Distribution:
        """Describe the lengths, percentiles by numpy's "linear" method."""
        total = self._counts.total()
        if not total:
            return Distribution.of([])
        ordered = sorted(self._counts.items())
        p50, p90, p99 = (self._quantile(ordered, total, share) for share in (0.5, 0.9, 0.99))
        mean = sum(length * count for length, count in ordered) / total
        return Distribution(
            count=total, mean=mean, p50=p50, p90=p90, p99=p99, max=float(ordered[-1][0])
        )

    @staticmethod
    def _quantile(ordered: list[tuple[int, int]], total: int, share: float) -> float:
        """Interpolate between the two order statistics around share * (total - 1)."""
        rank = share * (total - 1)
        low, high = math.floor(rank), math.ceil(rank)
        values = []
        for wanted in (low, high):
            passed = 0
            for length, count in ordered:
                passed += count
                if passed > wanted:
                    values.append(length)
                    break
        return values[0] + (values[1] - values[0]) * (rank - low)
