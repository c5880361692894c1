"""When a reader is shown tokens whose arrivals are known: naive pacing, and the best possible.

All take the arrivals of one answer, ascending, and return as many instants. No token is shown
before it is there, and but for `at_once` no two are closer than the pace.
"""

import itertools
from collections.abc import Sequence

import numpy as np

__all__ = ["at_once", "best_possible", "buffered", "fixed_pace", "largest_gap_s", "least_gap_s"]


def at_once(arrived_at_s: Sequence[float]) -> list[float]:
    """Show each token as soon as it is there."""
    return list(arrived_at_s)


def fixed_pace(arrived_at_s: Sequence[float], pace_s: float) -> list[float]:
    """Show a token at every pace, or when it comes, if it is late."""
    return buffered(arrived_at_s, pace_s, 1)


def buffered(arrived_at_s: Sequence[float], pace_s: float, num_tokens: int) -> list[float]:
    """Begin once `num_tokens` tokens are there (or all), then show one at every pace.

    This is the buffer of DiSCo (arXiv 2502.11417): as many tokens as the reader reads while the
    answer moves to the other side.
    """
    if not arrived_at_s:
        return []
    shown = [arrived_at_s[min(num_tokens, len(arrived_at_s)) - 1]]
    for at_s in arrived_at_s[1:]:
        shown.append(max(at_s, shown[-1] + pace_s))
    return shown


def best_possible(arrived_at_s: Sequence[float], pace_s: float) -> list[float]:
    """Show the first token when it comes, and the others with the smallest possible largest gap.

    Needs hindsight. Each gap is the steepest line to any later arrival, or the pace if that is
    more: the first edge of the least concave majorant of what is left.
    """
    if not arrived_at_s:
        return []
    arrived = np.array(arrived_at_s, dtype=np.float64)
    counts = np.arange(1, len(arrived) + 1, dtype=np.float64)
    shown = [float(arrived[0])]
    for position in range(1, len(arrived)):
        left = arrived[position:]
        slope_s = float(((left - shown[-1]) / counts[: len(left)]).max())
        shown.append(max(shown[-1] + max(pace_s, slope_s), float(arrived[position])))
    return shown


def least_gap_s(arrived_at_s: Sequence[float], pace_s: float) -> float:
    """Return the largest gap of `best_possible`, from the definition.

    Any schedule that begins with the first arrival has shown i gaps when token i is shown, so one
    of them is at least (a(i) - a(0)) / i; and a schedule whose gaps are all as long as the largest
    of these shows nothing early.
    """
    first = arrived_at_s[0]
    steepest = ((at - first) / i for i, at in enumerate(arrived_at_s[1:], 1))
    return max(pace_s, max(steepest, default=0.0))


def largest_gap_s(shown_at_s: Sequence[float]) -> float:
    """Return the longest time between two tokens; 0 for fewer than two."""
    return max((b - a for a, b in itertools.pairwise(shown_at_s)), default=0.0)
