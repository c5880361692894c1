"""A device that is held back until the cloud has sent all it was asked for.

Without it a quick device would take over before the position that is to be tried.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pd_core.generation import (
    CloudEvent,
    Extend,
    Finished,
    ModelCard,
    ServerInfo,
    Start,
    Stop,
    TokenLogprobs,
)
from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import CloudLink, CloudStream, LocalEngine, LocalSequence

__all__ = ["HeldEngine", "TellingLink"]


@dataclass(frozen=True, slots=True)
class TellingLink:
    """A cloud link that sets `finished` when a stream has ended by itself."""

    link: CloudLink
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def info(self) -> ServerInfo:
        """Ask the cloud."""
        return await self.link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream of the inner link."""
        return _TellingStream(await self.link.open(start), self.finished)

    async def close(self) -> None:
        """Close the inner link."""
        await self.link.close()


class _TellingStream:
    def __init__(self, stream: CloudStream, finished: asyncio.Event) -> None:
        self._stream = stream
        self._finished = finished

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self._finished.set()
                yield event

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()


@dataclass(frozen=True, slots=True)
class HeldEngine:
    """A local engine whose passes wait for `released`."""

    engine: LocalEngine
    released: asyncio.Event

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
        return _HeldSequence(self.engine.open(sampling, prompt_token_ids), self.released)

    async def close(self) -> None:
        """Free the inner engine."""
        await self.engine.close()


class _HeldSequence:
    def __init__(self, sequence: LocalSequence, released: asyncio.Event) -> None:
        self._sequence = sequence
        self._released = released

    @property
    def logprobs(self) -> TokenLogprobs | None:
        return self._sequence.logprobs

    async def feed(
        self,
        token_ids: Sequence[int],
        sample_position: int | None,
        positions: Sequence[int] | None = None,
    ) -> int | None:
        await self._released.wait()
        return await self._sequence.feed(token_ids, sample_position, positions)

    def close(self) -> None:
        self._sequence.close()
