"""The lateness of tokens that should come at an even pace.

It is not gap minus pace: after a late token the next gap is shorter, and the two would cancel. A
token's lateness is measured against a line at the given pace through the least late of the tokens
just before it, so a stream that falls behind is late by all it has lost over them.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["UNJUDGED_TOKENS", "lateness_s"]

UNJUDGED_TOKENS = 8
"""Tokens at the start of an answer that are not judged: a token is compared with those before."""


def lateness_s(came_s: Sequence[float], pace_s: float) -> list[float]:
    """Return how late each token is.

    Args:
        came_s: instants, [n], in order.
        pace_s: between two of them.

    Returns:
        [n - 8], of the ninth token and on; empty where there are fewer.
    """
    behind_s = np.array(came_s) - pace_s * np.arange(len(came_s))
    if len(behind_s) <= UNJUDGED_TOKENS:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(behind_s, UNJUDGED_TOKENS + 1)
    late_s: list[float] = (behind_s[UNJUDGED_TOKENS:] - windows.min(axis=1)).tolist()
    return late_s
