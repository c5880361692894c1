"""What the scheduler returns: chunks of requests, one step's plan. No torch here."""

from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.prefix_cache import Block

__all__ = ["Chunk", "Placement", "Schedule"]


class Chunk(NamedTuple):  # one is made for every token: a third of a frozen dataclass's time
    """The num_tokens tokens of one request from first on, to compute in this step.

    Attributes:
        request: the request.
        first: index of the first token, counted from the start of the prompt.
        num_tokens: at least 1.
        samples: whether it reaches the last known token, so that a new token is sampled.
        decodes: whether it is a decode step of a running stream (else part of a prefill).
        draft: guesses at the tokens after it, computed too; see `drafting`.
    """

    request: LiveRequest
    first: int
    num_tokens: int
    samples: bool
    decodes: bool
    draft: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        """Tokens computed, guesses included."""
        return self.num_tokens + len(self.draft)


@dataclass(frozen=True, slots=True)
class Placement(Generic[Block]):
    """A queued request that got a slot.

    Attributes:
        request: the request.
        num_room_tokens: the number of tokens it holds blocks for.
        prefix: the cached blocks its tokens begin with, to be copied into its KV cache.
    """

    request: LiveRequest
    num_room_tokens: int
    prefix: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule(Generic[Block]):
    """One step: what to compute, and what has changed since the previous step.

    Attributes:
        chunks: what to compute.
        expired: queued requests that were dropped as too old.
        placed: requests that got a slot.
        preempted: requests that lost their slot and KV cache and are queued again.
    """

    chunks: list[Chunk]
    expired: list[LiveRequest] = field(default_factory=list)
    placed: list[Placement[Block]] = field(default_factory=list)
    preempted: list[LiveRequest] = field(default_factory=list)
