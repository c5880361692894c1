"""How late a real client's timers fire: measured by a replay, drawn again for a virtual clock.

A replay's dispatch lag is exactly that lateness: a request is sent when the timer of its arrival
fires. So a simulation that is compared with the replay can be given the same lateness.
"""

import random

import numpy as np

from pd_bench.results.result import Distribution

__all__ = ["TimerLag"]

_SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)


class TimerLag:
    """Draws the seconds by which one timer is late.

    Args:
        measured: the lags of a real run, in seconds; at least one.
        seed: seed of the draws.
    """

    def __init__(self, measured: Distribution, seed: int) -> None:
        quantiles = (measured.p50, measured.p90, measured.p99, measured.max)
        assert measured.count, "nothing was measured"
        # Linear between the quantiles; no timer fires early.
        self._lags_s = [0.0, *(max(lag_s or 0.0, 0.0) for lag_s in quantiles)]
        self._random = random.Random(seed)

    def draw_s(self) -> float:
        """Return the next timer's lag."""
        return float(np.interp(self._random.random(), _SHARES, self._lags_s))
