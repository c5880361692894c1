"""Emulated sides that are not even: a stream that comes in bursts or pauses, a device that slows.

All run on the virtual clock, like the sides that they change.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_core.generation import CloudEvent, Extend, ServerInfo, Start, Stop, Tokens
from pd_device_client.contract.ports import CloudLink, CloudStream
from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["ThrottlingEngine", "UnevenLink", "Unevenness"]


@dataclass(frozen=True, slots=True)
class Unevenness:
    """How a cloud's tokens come.

    Attributes:
        flush_s: a proxy on the way hands on what it has at every multiple of this; 0: at once.
        pause_at: nothing comes for `pause_s` before the token at this position; None: no pause.
        pause_s: seconds of the pause.
    """

    flush_s: float = 0.0
    pause_at: int | None = None
    pause_s: float = 0.0


class UnevenLink:
    """A link whose streams are uneven.

    Args:
        link: the even link underneath.
        unevenness: how the tokens come.
    """

    def __init__(self, link: CloudLink, unevenness: Unevenness) -> None:
        self._link = link
        self._unevenness = unevenness
        self._paused = False

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card."""
        return await self._link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream; a pause comes once, however many streams are opened."""
        return _UnevenStream(await self._link.open(start), self)

    async def close(self) -> None:
        """Close the link underneath."""
        await self._link.close()

    async def hold(self, event: CloudEvent) -> None:
        """Wait until this event is handed on."""
        if not isinstance(event, Tokens):
            return
        uneven, loop = self._unevenness, asyncio.get_running_loop()
        pauses = uneven.pause_at is not None and event.first_position >= uneven.pause_at
        if pauses and not self._paused:
            self._paused = True
            await asyncio.sleep(uneven.pause_s)
        if uneven.flush_s > 0:
            now_s = loop.time()
            flushed_s = math.ceil(now_s / uneven.flush_s - 1e-9) * uneven.flush_s
            await asyncio.sleep(max(flushed_s - now_s, 0.0))


class _UnevenStream:
    def __init__(self, stream: CloudStream, link: UnevenLink) -> None:
        self._stream = stream
        self._link = link

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                await self._link.hold(event)
                yield event

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()


class ThrottlingEngine(EmulatedDeviceEngine):
    """An emulated device that gets slower at an instant, as one does that has become hot.

    Args:
        profile: its speeds before.
        factor: how many times as long every pass takes afterwards.
        vocab_size, eos_token_ids: the cloud's.
        seed: seed of the spread.

    Attributes:
        slows_at_s: the instant on the loop's clock; infinity until it is set.
    """

    def __init__(
        self,
        profile: SpeedProfile,
        factor: float,
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__(profile, vocab_size=vocab_size, eos_token_ids=eos_token_ids, seed=seed)
        self._factor = factor
        self.slows_at_s = math.inf

    def draw_s(self, first_position: int, num_tokens: int) -> float:
        """Return how long the next pass takes; every call draws anew."""
        slow = asyncio.get_running_loop().time() >= self.slows_at_s
        return super().draw_s(first_position, num_tokens) * (self._factor if slow else 1.0)
