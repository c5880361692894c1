"""A device that is held back until the cloud has come as far as it should, and a link that tells.

Without it a quick device would take over before the position that is to be tried.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pd_core.generation import (
    CloudEvent,
    Extend,
    ModelCard,
    ServerInfo,
    Start,
    Stop,
    TokenLogprobs,
    Tokens,
)
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import CloudLink, CloudStream, LocalEngine, LocalSequence

__all__ = ["HeldEngine", "WatchedLink"]


@dataclass(slots=True)
class WatchedLink:
    """A cloud link that tells of every event before it is handled.

    Attributes:
        link: the real one.
        on_event: called with each event, and how many tokens have come so far over all streams.
        received: those tokens.
    """

    link: CloudLink
    on_event: Callable[[CloudEvent, int], None]
    received: int = 0

    async def info(self) -> ServerInfo:
        """Ask the cloud."""
        return await self.link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream of the inner link."""
        return _WatchedStream(self, await self.link.open(start))

    async def close(self) -> None:
        """Close the inner link."""
        await self.link.close()


class _WatchedStream:
    def __init__(self, link: WatchedLink, stream: CloudStream) -> None:
        self._link = link
        self._stream = stream

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    self._link.received += len(event.token_ids)
                self._link.on_event(event, self._link.received)
                yield event

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()


@dataclass(frozen=True, slots=True)
class HeldEngine:
    """A local engine that waits before each pass, or fails there.

    Attributes:
        engine: the inner one.
        before_pass: called before each pass of any sequence, and awaited.
    """

    engine: LocalEngine
    before_pass: Callable[[], Awaitable[object]]

    @property
    def card(self) -> ModelCard:
        """The inner engine's."""
        return self.engine.card

    @property
    def chunk_tokens(self) -> int:
        """The inner engine's."""
        return self.engine.chunk_tokens

    @property
    def leaves_out(self) -> bool:
        """The inner engine's."""
        return self.engine.leaves_out

    def cached_tokens(self, prompt_token_ids: Sequence[int]) -> int:
        """Ask the inner engine."""
        return self.engine.cached_tokens(prompt_token_ids)

    def open(
        self, sampling: SamplingParams, prompt_token_ids: Sequence[int] = ()
    ) -> "_HeldSequence":
        """Open a sequence of the inner engine."""
        return _HeldSequence(self.engine.open(sampling, prompt_token_ids), self.before_pass)

    async def close(self) -> None:
        """Free the inner engine."""
        await self.engine.close()


class _HeldSequence:
    def __init__(
        self, sequence: LocalSequence, before_pass: Callable[[], Awaitable[object]]
    ) -> None:
        self._sequence = sequence
        self._before_pass = before_pass

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        await self._before_pass()
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()
