"""How far a figure over requests can be trusted: paired bootstrap intervals and a rank test.

Requests of the same row are compared with each other, so the row's own effect on a time (a long
prompt, a busy moment) affects neither the interval nor the test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pd_bench.results.quantiles import quantiles

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "Interval",
    "Statistic",
    "Values",
    "bootstrap_pair",
    "rows_to_tell",
    "sign_p",
    "signed_rank_p",
]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
_EXACT_ROWS = 50  # float64 counts 2 ** 50 choices of signs exactly
_BATCH_VALUES = 2_000_000  # values held at once while resampling

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]
"""Reduces the last axis of an array: (..., rows) to (...)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range of most of its resampled values.

    Attributes:
        value: the figure of the rows themselves.
        low: lower end.
        high: upper end.
        num_rows: number of rows it is computed from.
    """

    value: float
    low: float
    high: float
    num_rows: int


def bootstrap_pair(
    first: Values,
    second: Values,
    statistic: Statistic,
    compare: Callable[[Values, Values], Values],
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Compare a statistic of two schemes over the same rows, with a percentile interval.

    Rows are drawn with replacement, the same ones for both (paired bootstrap; Efron and
    Tibshirani, *An Introduction to the Bootstrap*, 1993).

    Args:
        first: (rows,), one value a row.
        second: (rows,), values of the same rows.
        statistic: such as the median.
        compare: function of the two statistics, such as the ratio.
        seed: seed of the resampling; the same seed gives the same interval.
        confidence: share of the resampled values in the interval.

    Returns:
        None for fewer than two rows, or if the comparison is not finite.
    """
    num_rows = len(first)
    if num_rows < 2:
        return None
    value = compare(statistic(first), statistic(second))
    numbers = np.random.default_rng(seed)
    batch = max(1, min(RESAMPLES, _BATCH_VALUES // num_rows))
    resampled: list[Values] = []
    for begin in range(0, RESAMPLES, batch):
        size = (min(batch, RESAMPLES - begin), num_rows)
        drawn = numbers.integers(0, num_rows, size)
        resampled.append(compare(statistic(first[drawn]), statistic(second[drawn])))
    values = np.concatenate(resampled)
    values = values[np.isfinite(values)]
    if not np.isfinite(value) or not len(values):
        return None
    tail = (1 - confidence) / 2
    low, high = quantiles(values, (tail, 1 - tail))
    return Interval(float(value), float(low), float(high), num_rows)


def signed_rank_p(differences: Values) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test (Hollander and Wolfe, 1999, 3.1).

    Differences of 0 are left out. Few differences are tested by the exact distribution, more by the
    normal approximation, corrected for ties.

    Args:
        differences: (rows,), second minus first.
    """
    values = differences[differences != 0]
    n = len(values)
    if not n:
        return 1.0
    magnitudes = np.abs(values)
    _, inverse, counts = np.unique(magnitudes, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    positive = float(ranks[values > 0].sum())
    if n <= _EXACT_ROWS:
        return _exact_rank_p(ranks, positive)
    mean = n * (n + 1) / 4
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    if variance <= 0:
        return 1.0
    distance = abs(positive - mean) - 0.5  # continuity correction
    return math.erfc(max(distance, 0.0) / math.sqrt(2 * variance))


def _exact_rank_p(ranks: Values, positive: float) -> float:
    """Return the share of all choices of signs that are at least as far from the middle."""
    doubled = np.rint(2 * ranks).astype(int)  # ties have halves
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    shares, sums = ways / 2.0 ** len(ranks), np.arange(len(ways))
    tail = min(shares[sums <= 2 * positive].sum(), shares[sums >= 2 * positive].sum())
    return float(min(2 * tail, 1.0))


def rows_to_tell(level: float) -> int:
    """Return the fewest rows with which a rank test at this level can tell two results apart."""
    return math.ceil(math.log2(2 / level))


def sign_p(num_less: int, num_more: int) -> float:
    """Return the two-sided p-value of the exact sign test of equal probabilities.

    Args:
        num_less: rows that changed one way.
        num_more: rows that changed the other way.
    """
    n = num_less + num_more
    rarer = sum(math.comb(n, i) for i in range(min(num_less, num_more) + 1))
    return min(1.0, 2 * rarer / (1 << n))
