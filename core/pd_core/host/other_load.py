"""How much of this machine's processor time other processes take."""

import os
import time
from collections.abc import Callable

import psutil

__all__ = ["OtherLoad", "system_busy_s"]

_LEAST_S = 0.5  # shorter spans are too coarse: the system counts in hundredths of a second
_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guests are counted as user time too


def system_busy_s() -> float:
    """Return the seconds that all cores together were busy since the machine started."""
    times: dict[str, float] = psutil.cpu_times()._asdict()
    return sum(seconds for name, seconds in times.items() if name not in _IDLE)


def _own_s() -> float:
    times = os.times()
    return times.user + times.system


class OtherLoad:
    """Reads the load, a twentieth of a millisecond each time.

    Args:
        busy_s: seconds that all cores were busy, for any process.
        own_s: seconds that this process kept cores busy.
        clock: seconds.
    """

    def __init__(
        self,
        busy_s: Callable[[], float] = system_busy_s,
        own_s: Callable[[], float] = _own_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy_s = busy_s
        self._own_s = own_s
        self._clock = clock
        self._cores: float | None = None
        self._last = self._read()

    def cores(self) -> float | None:
        """Return how many cores other processes kept busy since the last reading, on average.

        Within half a second of it, as it said; None: there was none.
        """
        now = self._read()
        span_s = now[0] - self._last[0]
        if span_s >= _LEAST_S:
            others_s = (now[1] - self._last[1]) - (now[2] - self._last[2])
            self._cores = max(0.0, others_s / span_s)
            self._last = now
        return self._cores

    def _read(self) -> tuple[float, float, float]:
        return self._clock(), self._busy_s(), self._own_s()
