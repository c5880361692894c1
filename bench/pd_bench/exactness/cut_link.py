"""A cloud that is gone after some tokens, and does not come back until it is told to."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pd_core.errors import CloudUnavailable
from pd_core.generation import CloudEvent, Extend, ServerInfo, Start, Stop, Tokens
from pd_device_client.contract.ports import CloudLink, CloudStream

__all__ = ["CutLink"]


class CutLink:
    """A link to a cloud that can be cut.

    Attributes:
        cut: set while the cloud is gone.
    """

    def __init__(self, link: CloudLink) -> None:
        self._link = link
        self.cut = asyncio.Event()
        self._left: int | None = None

    def cut_after(self, num_tokens: int | None) -> None:
        """Bring the cloud back, and cut it behind that many more tokens; None: never."""
        self.cut.clear()
        self._left = num_tokens
        if num_tokens == 0:
            self.cut.set()

    def passes(self, num_tokens: int) -> int:
        """Count tokens that came; return how many of them still arrive."""
        if self._left is None:
            return num_tokens
        passed = min(self._left, num_tokens)
        self._left -= passed
        if not self._left:
            self.cut.set()
        return passed

    async def info(self) -> ServerInfo:
        """Ask the cloud."""
        return await self._link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream, if the cloud is there."""
        if self.cut.is_set():
            raise CloudUnavailable("the cloud was cut off for the measurement")
        return _CutStream(self, await self._link.open(start))

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()


class _CutStream:
    def __init__(self, link: CutLink, stream: CloudStream) -> None:
        self._link = link
        self._stream = stream

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                if not isinstance(event, Tokens):
                    yield event
                    continue
                passed = self._link.passes(len(event.token_ids))
                if passed:
                    yield event.first(passed)
                if self._link.cut.is_set():
                    raise CloudUnavailable("the cloud was cut off for the measurement")

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()
