"""What an engine is: requests in, events out, token ids only, owned by one thread.

An engine knows no transport, no text and no asyncio. `EngineThread` owns one and is the only
caller of its methods; implementations need no locks.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pd_core.errors import PdError
from pd_core.generation import Finished, Load, ModelCard, TokenLogprobs
from pd_server.engine.live_request import LiveRequest

__all__ = [
    "Engine",
    "EngineEvent",
    "PromptScored",
    "RequestFailed",
    "RequestFinished",
    "ScoreKind",
    "TokensMade",
]


class TokensMade(NamedTuple):  # one is made for every token: a third of a frozen dataclass's time
    """New tokens of a request, in order of position; with one logprobs each where it asks."""

    request_id: int
    first_position: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()


class ScoreKind(StrEnum):
    """What an engine's prompt scores mean; all add up to 1 over the prompt."""

    ATTENTION = "attention"  # as pd_core.models.prompt_scores says
    SELF_INFORMATION = "self-information"  # how unexpected a token was: a different measure


@dataclass(frozen=True, slots=True)
class PromptScored:
    """How much the end of the prompt attends to each token; see pd_core.models.prompt_scores.

    Comes once, after the prefill and before the last event; not at all when nothing is computed.
    Committed tokens after the prompt have no scores.
    """

    request_id: int
    scores: tuple[float, ...]
    kind: ScoreKind = ScoreKind.ATTENTION


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A request ended in order; the last event about it. Its KV cache is already free."""

    request_id: int
    finished: Finished


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request failed; the last event about it. Its KV cache is already free."""

    request_id: int
    error: PdError


EngineEvent = TokensMade | PromptScored | RequestFinished | RequestFailed


class Engine(Protocol):
    """A synchronous engine. Every accepted request ends with exactly one last event, or abort."""

    @property
    def card(self) -> ModelCard:
        """What it runs; may be read from any thread."""
        ...

    def add_request(self, request: LiveRequest) -> None:
        """Queue a request. The caller bounds how many."""
        ...

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit; a lower one, or an unknown request, is ignored."""
        ...

    def stop(self, request_id: int) -> None:
        """End a request in order: the next step reports RequestFinished. Unknown: ignored."""
        ...

    def abort(self, request_id: int) -> None:
        """Forget a request and free all it holds; no event follows. Unknown: ignored."""
        ...

    def has_unfinished(self) -> bool:
        """Whether step() has work to do or events to report, its own death included."""
        ...

    def step(self) -> list[EngineEvent]:
        """Do a bounded piece of work for all running requests and report what came of it.

        Raises:
            EngineDead: the failure affects more than single requests; make no further calls.
        """
        ...

    def load(self) -> Load:
        """How busy it is, as of the last step."""
        ...

    def close(self) -> None:
        """Release everything held outside this process; make no further calls."""
        ...
