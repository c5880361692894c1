"""The lateness of tokens that should come at an even pace.

It is not gap minus pace: the gap after a late token is shorter, so the two would cancel. Lateness
counts from a line at the given pace through the least late of the tokens just before, so a stream
that falls behind is late by everything it lost over them.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["UNJUDGED_TOKENS", "lateness_s"]

UNJUDGED_TOKENS = 8
"""First tokens of an answer, which have too few tokens before them to compare with."""


def lateness_s(came_s: Sequence[float], pace_s: float) -> list[float]:
    """Return how late each token is.

    Args:
        came_s: the tokens' instants, [n], in order.
        pace_s: seconds between two tokens.

    Returns:
        [n - 8], from the ninth token on; empty for fewer tokens.
    """
    behind_s = np.array(came_s) - pace_s * np.arange(len(came_s))
    if len(behind_s) <= UNJUDGED_TOKENS:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(behind_s, UNJUDGED_TOKENS + 1)
    late_s: list[float] = (behind_s[UNJUDGED_TOKENS:] - windows.min(axis=1)).tolist()
    return late_s
