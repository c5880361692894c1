"""Distributions of whole numbers in memory that grows with their variety, not their count."""

from collections import Counter

from pd_bench.results.quantiles import counted_quantiles
from pd_bench.results.result import Distribution

__all__ = ["LengthCounts"]


class LengthCounts:
    """Counts lengths in tokens; its percentiles are exact."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Add one length."""
        self._counts[length] += 1

    def distribution(self) -> Distribution:
        """Describe the lengths, as `Distribution.of` would."""
        total = self._counts.total()
        if not total:
            return Distribution.of([])
        p50, p90, p99 = counted_quantiles(self._counts, (0.5, 0.9, 0.99))
        mean = sum(length * count for length, count in self._counts.items()) / total
        largest = float(max(self._counts))
        return Distribution(count=total, mean=mean, p50=p50, p90=p90, p99=p99, max=largest)
