"""When the cloud is left alone, and when it is tried again: a policy without clock or network.

    closed --- enough failures in a row ---> open --- after a wait ---> probing
       ^                                      ^                            |
       +---- enough good probes in a row -----|----------------------------+
                                              +---- any failure: a longer wait

One hiccup changes nothing, and one good probe does not bring a cloud back that comes and goes: so
many in a row are asked for either way. While it is open no answer waits for the cloud. A probe is
only a question for the cloud's card, so a cloud that comes back is on trial until it has carried
an answer: a single failure before that opens the breaker again, for longer than before.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BreakerPolicy", "BreakerState", "CircuitBreaker"]


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing
    PROBING = "probing"  # questions for the cloud's card, and no answers


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to change.

    Attributes:
        num_failures: in a row, until it opens.
        num_probes: good ones in a row, until it closes again.
        first_wait_s: from opening to the first probe.
        longest_wait_s: waits double up to this with every failure in which no answer was carried.
    """

    num_failures: int = 3
    num_probes: int = 2
    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0


class CircuitBreaker:
    """Judges a cloud by what became of the attempts to use it.

    Args:
        policy: when to change.
    """

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._failures = 0  # since an answer was carried
        self._probes = 0  # good ones in a row
        self._wait_s = 0.0
        self._probe_at_s = 0.0
        self._open = False

    def state(self, now_s: float) -> BreakerState:
        """Return the state at an instant."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.PROBING if now_s >= self._probe_at_s else BreakerState.OPEN

    def probe_in_s(self, now_s: float) -> float:
        """Seconds until the cloud may be asked again; 0 when it may be now."""
        return max(self._probe_at_s - now_s, 0.0) if self._open else 0.0

    def carried(self) -> None:
        """The cloud did its part of an answer: all is well."""
        self._failures = self._probes = 0
        self._wait_s = 0.0
        self._open = False

    def answered(self) -> None:
        """The cloud answered a probe; while the breaker is closed that says nothing new."""
        if self._open:
            self._probes += 1
            if self._probes >= self._policy.num_probes:
                self._open = False
                self._failures = self._policy.num_failures - 1

    def failed(self, now_s: float) -> None:
        """An attempt failed; those that began before it opened do not make the wait longer."""
        self._failures += 1
        self._probes = 0
        policy = self._policy
        opens = not self._open and self._failures >= policy.num_failures
        if opens or (self._open and now_s >= self._probe_at_s):
            longer_s = min(2 * self._wait_s, policy.longest_wait_s)
            self._open, self._wait_s = True, longer_s or policy.first_wait_s
            self._probe_at_s = now_s + self._wait_s
