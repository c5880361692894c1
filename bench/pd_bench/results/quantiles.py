"""The one way in which the bench computes a quantile: numpy's, linear between two neighbours.

Only a sketch of too many values to keep, which names its own error, and the planner's nearest rank
(pd_device_client.planning), which guards promises and describes nothing, do without it.
"""

import bisect
import itertools
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PERCENTILE_METHOD", "counted_quantiles", "quantiles"]

PERCENTILE_METHOD: Final = "linear"
"""numpy's name of it, as documents tell it."""


def quantiles(values: ArrayLike, shares: ArrayLike) -> NDArray[np.float64]:
    """Return the values below which these shares of all values lie.

    Args:
        values: (..., n), n > 0; the last axis is reduced.
        shares: (s,), or one; each from 0 to 1.

    Returns:
        (s, ...), or (...) for one share.
    """
    given, wanted = np.asarray(values, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    found = np.quantile(given, wanted, axis=-1, method=PERCENTILE_METHOD)
    return np.asarray(found, dtype=np.float64)


def counted_quantiles(counts: Mapping[int, int], shares: tuple[float, ...]) -> list[float]:
    """Return `quantiles` of whole numbers that stand `counts` times each, without a list of all.

    They are numpy's but for its rounding of the last bit.
    """
    ordered = sorted(counts)
    ends = list(itertools.accumulate(counts[value] for value in ordered))
    found = []
    for share in shares:
        rank = share * (ends[-1] - 1)
        below = ordered[bisect.bisect_right(ends, math.floor(rank))]
        above = ordered[bisect.bisect_right(ends, math.ceil(rank))]
        found.append(below + (above - below) * (rank - math.floor(rank)))
    return found
