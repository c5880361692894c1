"""The one way in which the bench computes a quantile: numpy's, linear between two neighbours.

The exceptions are the sketch for too many values to keep, which states its own error, and the
planner's nearest rank (pd_device_client.planning), which guards promises and describes nothing.
"""

import bisect
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["PERCENTILE_METHOD", "counted_quantiles", "quantiles"]

PERCENTILE_METHOD: Final = "linear"
"""numpy's name of the method, as given in documents."""


def quantiles(values: "ArrayLike", shares: "ArrayLike") -> "NDArray[np.float64]":
    """Return the values below which these shares of all values lie.

    Args:
        values: (..., n), n > 0; the last axis is reduced.
        shares: (s,), or a single share; each from 0 to 1.

    Returns:
        (s, ...), or (...) for a single share.
    """
    import numpy as np  # not before figures are wanted: it takes a tenth of a second

    given, wanted = np.asarray(values, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    found = np.quantile(given, wanted, axis=-1, method=PERCENTILE_METHOD)
    return np.asarray(found, dtype=np.float64)


def counted_quantiles(counts: Mapping[int, int], shares: tuple[float, ...]) -> list[float]:
    """Return `quantiles` of whole numbers that occur `counts` times each, without listing them all.

    They equal numpy's except for the rounding of the last bit.
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
