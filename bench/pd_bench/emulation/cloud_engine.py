"""An engine that computes nothing: in each step every request gets a token, which is a timestamp.

It measures the delay that a server adds to a token, with more streams than any model could decode
here.
"""

import time

from pd_core.generation import Fingerprints, Finished, FinishReason, Load, ModelCard
from pd_server.engine.contract import (
    EngineEvent,
    RequestFinished,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest

__all__ = ["STAMP_RANGE", "EmulatedCloudEngine", "age_s", "stamp"]

STAMP_RANGE = 1 << 31


def stamp() -> int:
    """Return this instant in microseconds, as a token id: all processes share the clock."""
    return time.monotonic_ns() // 1000 % STAMP_RANGE


def age_s(token_id: int) -> float:
    """Return the seconds since a stamp was made on this machine."""
    return (stamp() - token_id) % STAMP_RANGE / 1e6


class EmulatedCloudEngine:
    """See `pd_server.engine.contract.Engine` for the contract.

    Args:
        step_s: seconds from a request's token to its next.
        max_num_seqs: the number of slots it reports; requests beyond it run too.
        groups: number of turns within a step in which requests get their tokens; 1: all at once.
    """

    def __init__(self, step_s: float, max_num_seqs: int, groups: int = 1) -> None:
        self._turn_s = step_s / groups
        self._max_num_seqs = max_num_seqs
        self._groups = groups
        self._turn = 0
        self._due_s = time.monotonic()
        self._requests: dict[int, LiveRequest] = {}
        self._ended: list[EngineEvent] = []

    @property
    def card(self) -> ModelCard:
        """The card of a placeholder model."""
        return ModelCard(
            name="emulated",
            engine="emulated",
            fingerprints=Fingerprints("", "", "", "emulated"),
            eos_token_ids=(),
            vocab_size=STAMP_RANGE,
            max_context_tokens=1 << 20,
            sampler="stamps",
        )

    def add_request(self, request: LiveRequest) -> None:
        """Take a request; its first token comes with its next turn."""
        self._requests[request.request_id] = request

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit."""
        if (request := self._requests.get(request_id)) is not None:
            request.token_limit = max(request.token_limit, token_limit)

    def stop(self, request_id: int) -> None:
        """End a request in order."""
        if request_id in self._requests:
            self._finish(request_id, FinishReason.CANCELLED)

    def abort(self, request_id: int) -> None:
        """Forget a request."""
        self._requests.pop(request_id, None)

    def has_unfinished(self) -> bool:
        """Whether there are requests, or ends to report."""
        return bool(self._requests or self._ended)

    def step(self) -> list[EngineEvent]:
        """Wait for the next turn and give its requests their tokens."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._turn_s, now_s - self._turn_s)
        time.sleep(max(0.0, self._due_s - now_s))
        self._turn = (self._turn + 1) % self._groups
        events: list[EngineEvent] = []
        for request_id in [r for r in self._requests if r % self._groups == self._turn]:
            request = self._requests[request_id]
            made = stamp()
            events.append(TokensMade(request_id, request.next_position, (made,)))
            request.token_ids.append(made)
            if (reason := request.end(())) is not None:
                self._finish(request_id, reason)
        ended, self._ended = self._ended, []
        return events + ended

    def load(self) -> Load:
        """How many requests there are."""
        return Load(num_running=len(self._requests), max_num_seqs=self._max_num_seqs)

    def close(self) -> None:
        """Do nothing."""

    def _finish(self, request_id: int, reason: FinishReason) -> None:
        request = self._requests.pop(request_id)
        finished = Finished(reason, request.num_generated_tokens)
        self._ended.append(RequestFinished(request_id, finished))
