"""Whether there is room for one more request: decided at once, on the event loop, exactly."""

import time
from collections.abc import Callable

from pd_core.errors import QueueFull

__all__ = ["Admission", "Ticket"]

_MIN_RETRY_S = 0.05
_MAX_RETRY_S = 60.0
_UNKNOWN_RETRY_S = 1.0
_DECAY = 0.9


class Ticket:
    """One admitted request's share of the bounds; give it back with `release`."""

    __slots__ = ("admitted_at_s", "num_tokens", "released")

    def __init__(self, num_tokens: int, admitted_at_s: float) -> None:
        self.num_tokens = num_tokens
        self.admitted_at_s = admitted_at_s
        self.released = False


class Admission:
    """Bounds the requests and the tokens in flight.

    A request is in flight from its admission until the engine has finished it. So at most
    max_num_seqs run and max_num_waiting wait, and no later queue can grow beyond that.

    Args:
        max_num_seqs: slots of the engine.
        max_num_waiting: requests queued beyond them.
        max_tokens_in_flight: prompt tokens and token limits of all requests in flight together;
            a request that is alone is always admitted and extended.
        clock: seconds, for the retry delay.
    """

    def __init__(
        self,
        max_num_seqs: int,
        max_num_waiting: int,
        max_tokens_in_flight: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._max_in_flight = max_num_seqs + max_num_waiting
        self._max_num_waiting = max_num_waiting
        self._max_tokens = max_tokens_in_flight
        self._clock = clock
        self._num_tokens = 0
        self._num_in_flight = 0
        self._residence_s = 0.0  # decayed mean; 0 while unknown

    @property
    def num_in_flight(self) -> int:
        """Requests admitted and not released yet."""
        return self._num_in_flight

    @property
    def num_tokens_in_flight(self) -> int:
        """Their prompt tokens and token limits."""
        return self._num_tokens

    def admit(self, num_tokens: int) -> Ticket:
        """Admit a request that may come to hold num_tokens tokens.

        Raises:
            QueueFull: over a bound; carries the delay after which there should be room.
        """
        if self._num_in_flight >= self._max_in_flight:
            retry_s = self._retry_after_s()
            raise QueueFull(
                f"all slots are taken and {self._max_num_waiting} requests wait already; "
                f"try again in {retry_s:.2f} s",
                retry_s,
            )
        if self._num_in_flight and self._num_tokens + num_tokens > self._max_tokens:
            retry_s = self._retry_after_s()
            raise QueueFull(
                f"{self._num_tokens} tokens are in flight and this request may add {num_tokens}, "
                f"over the bound of {self._max_tokens}; try again in {retry_s:.2f} s",
                retry_s,
            )
        self._num_in_flight += 1
        self._num_tokens += num_tokens
        return Ticket(num_tokens, self._clock())

    def extend(self, ticket: Ticket, num_tokens: int) -> int:
        """Let an admitted request make more tokens than it was admitted for, as far as they fit.

        The extension is cut rather than refused: a refusal would break a stream that can go on. At
        a cut limit the stream ends in order, and the client continues with a new, queued request.

        Args:
            ticket: the request's.
            num_tokens: how many more it asks for.

        Returns:
            How many of them it may make: all when it is alone, else what the bound leaves.
        """
        if ticket.released:
            return 0
        room = num_tokens if self._num_in_flight == 1 else self._max_tokens - self._num_tokens
        granted = max(0, min(num_tokens, room))
        ticket.num_tokens += granted
        self._num_tokens += granted
        return granted

    def release(self, ticket: Ticket) -> None:
        """Give a ticket back; a second release changes nothing."""
        if ticket.released:
            return
        ticket.released = True
        self._num_in_flight -= 1
        self._num_tokens -= ticket.num_tokens
        stayed_s = self._clock() - ticket.admitted_at_s
        self._residence_s = (
            _DECAY * self._residence_s + (1 - _DECAY) * stayed_s if self._residence_s else stayed_s
        )

    def _retry_after_s(self) -> float:
        """Estimate the seconds until the next request leaves.

        By Little's law requests leave at a rate of (number in flight) / (mean residence).
        """
        if not self._residence_s:
            return _UNKNOWN_RETRY_S
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, self._residence_s / self._num_in_flight))
