"""One request's events, on their way from the engine's thread to the RPC stream."""

import asyncio
from collections.abc import Callable

from pd_core.errors import PdError
from pd_core.generation import Finished, RefinedPrompt, TokenLogprobs, Tokens
from pd_core.refinement import chosen_ranges
from pd_server.engine.contract import EngineEvent, PromptScored, RequestFailed, TokensMade
from pd_server.engine.live_request import LiveRequest

__all__ = ["EngineStream"]


class EngineStream:
    """A buffer that never makes the engine wait: it holds at most the request's own tokens.

    Lives on the event loop. A slow consumer gets everything that has piled up as one Tokens. Scores
    of the prompt become the refined prompt here, so it is the same for every engine.

    Args:
        request: the request, before the engine gets it.
        on_end: called once, as soon as the request has ended or failed in the engine.
    """

    def __init__(self, request: LiveRequest, on_end: Callable[[], None]) -> None:
        self.request_id = request.request_id
        self._keep_ratio = request.keep_ratio
        self._protected_ranges = request.protected_ranges
        self._refined: RefinedPrompt | None = None
        self._on_end = on_end
        self._first_position = 0
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._end: Finished | PdError | None = None
        self._wake = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether the last event is in; no more come."""
        return self._end is not None

    def put(self, event: EngineEvent) -> None:
        """Take an event from the engine; anything after the last event is dropped."""
        if self.ended:
            return
        if isinstance(event, TokensMade):
            if not self._token_ids:
                self._first_position = event.first_position
            self._token_ids.extend(event.token_ids)
            self._logprobs.extend(event.logprobs)
            self._wake.set()
        elif isinstance(event, PromptScored):
            kept = chosen_ranges(event.scores, self._keep_ratio, self._protected_ranges)
            self._refined = RefinedPrompt(kept)
            self._wake.set()
        else:
            self._close(event.error if isinstance(event, RequestFailed) else event.finished)

    def fail(self, error: PdError) -> None:
        """End the stream with an error of our side; nothing changes once it has ended."""
        if not self.ended:
            self._close(error)

    async def receive(self) -> RefinedPrompt | Tokens | Finished:
        """Return the refined prompt once it is known, the next tokens, and Finished after the last.

        Raises:
            PdError: the request failed; all tokens made before that have been returned.
        """
        while not self._token_ids and self._end is None and self._refined is None:
            self._wake.clear()
            await self._wake.wait()
        if self._refined is not None:
            refined, self._refined = self._refined, None
            return refined
        if self._token_ids:
            tokens = Tokens(self._first_position, tuple(self._token_ids), tuple(self._logprobs))
            self._token_ids.clear()
            self._logprobs.clear()
            return tokens
        assert self._end is not None, "woken for nothing"
        if isinstance(self._end, PdError):
            raise self._end
        return self._end

    def _close(self, end: Finished | PdError) -> None:
        self._end = end
        self._wake.set()
        self._on_end()
