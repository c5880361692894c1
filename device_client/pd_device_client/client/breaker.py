"""A circuit breaker for the cloud: a policy without clock or network.

    closed --- enough failures in a row ---> open --- after a wait ---> probing
       ^                                      ^                            |
       +---- enough good probes in a row -----|----------------------------+
                                              +---- any failure: a longer wait

A single failure does not open it, and a single good probe of an unsteady cloud does not close it:
both need several in a row. While it is open no answer waits for the cloud. A probe only asks for
the cloud's card, so after closing, a single failure before the first finished answer opens it
again, for longer than before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BreakerPolicy", "BreakerState", "CircuitBreaker"]


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing
    PROBING = "probing"  # requests for the cloud's card, but no answers


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When the breaker opens and closes.

    Attributes:
        num_failures: failures in a row that open it.
        num_probes: good probes in a row that close it.
        first_wait_s: from opening to the first probe.
        longest_wait_s: waits double up to this until the cloud does its part of an answer.
    """

    num_failures: int = 3
    num_probes: int = 2
    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0


class CircuitBreaker:
    """Judges a cloud by the outcome of each attempt to use it.

    Args:
        policy: when it opens and closes.
        share: draws from [0, 1) which share of the second half of a wait is waited, so that not
            all devices come at one moment to a cloud that is back; 1: whole waits.
    """

    def __init__(
        self, policy: BreakerPolicy | None = None, share: Callable[[], float] = lambda: 1.0
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._share = share
        self._failures = 0  # since the cloud last did its part of an answer
        self._probes = 0  # good ones in a row
        self._wait_s = 0.0
        self._probe_at_s = 0.0
        self._open = False

    def state(self, now_s: float) -> BreakerState:
        """Return the state at `now_s`."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.PROBING if now_s >= self._probe_at_s else BreakerState.OPEN

    def probe_in_s(self, now_s: float) -> float:
        """Seconds until the cloud may be probed; 0 when it may be now."""
        return max(self._probe_at_s - now_s, 0.0) if self._open else 0.0

    def carried(self) -> None:
        """The cloud did its part of an answer: reset everything."""
        self._failures = self._probes = 0
        self._wait_s = 0.0
        self._open = False

    def answered(self) -> None:
        """The cloud answered a probe; this counts only while the breaker is open."""
        if self._open:
            self._probes += 1
            if self._probes >= self._policy.num_probes:
                self._open = False
                self._failures = self._policy.num_failures - 1

    def failed(self, now_s: float) -> None:
        """An attempt failed; failures while the breaker waits do not prolong the wait."""
        self._failures += 1
        self._probes = 0
        policy = self._policy
        opens = not self._open and self._failures >= policy.num_failures
        if opens or (self._open and now_s >= self._probe_at_s):
            longer_s = min(2 * self._wait_s, policy.longest_wait_s)
            self._open, self._wait_s = True, longer_s or policy.first_wait_s
            self._probe_at_s = now_s + self._wait_s * (1.0 + self._share()) / 2
