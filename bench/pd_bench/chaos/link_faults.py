"""A link that breaks as networks and servers do, on any clock, at places drawn by a seed."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import StrEnum

from pd_core.errors import CloudUnavailable, LinkCorrupted, PdError
from pd_core.generation import CloudEvent, Extend, Finished, ServerInfo, Start, Stop
from pd_device_client.contract.ports import CloudLink, CloudStream

__all__ = ["FaultyLink", "LinkFault", "LinkFaultKind", "draw_link_faults"]


class LinkFaultKind(StrEnum):
    """What goes wrong with a stream."""

    REFUSED = "refused"  # it cannot be opened
    CUT = "cut"  # the connection breaks
    STALLED = "stalled"  # nothing more comes, and nothing says so
    PAUSED = "paused"  # nothing comes for a while
    DOUBLED = "doubled"  # a message comes twice
    DROPPED = "dropped"  # a message is missing
    SWAPPED = "swapped"  # two messages come in the other order
    CHANGED = "changed"  # a message is not what was sent: its seal says so
    DEAF = "deaf"  # what the device sends breaks the connection


@dataclass(frozen=True, slots=True)
class LinkFault:
    """One stream's fault.

    Attributes:
        kind: what goes wrong.
        after: messages that arrive before it.
        seconds: of a pause.
    """

    kind: LinkFaultKind
    after: int
    seconds: float


def draw_link_faults(rng: random.Random) -> tuple[LinkFault | None, ...]:
    """Draw the faults of a link's first streams; None: that stream has none."""
    kinds = list(LinkFaultKind)
    return tuple(
        LinkFault(rng.choice(kinds), int(rng.expovariate(1 / 6)), rng.uniform(0.01, 20.0))
        if rng.random() < 0.6
        else None
        for _ in range(rng.randrange(1, 6))
    )


class FaultyLink:
    """A link whose streams have faults, one after another; later ones have none.

    Args:
        link: the link.
        faults: of its streams.
    """

    def __init__(self, link: CloudLink, faults: Sequence[LinkFault | None]) -> None:
        self._link = link
        self._faults = iter(faults)
        self._streams = set[_FaultyStream]()
        self._down = False

    async def info(self) -> ServerInfo:
        """Ask for the card.

        Raises:
            CloudUnavailable: the cloud is down.
        """
        if self._down:
            raise CloudUnavailable("the cloud is down")
        return await self._link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream; errors come from its events."""
        stream = _FaultyStream(await self._link.open(start), next(self._faults, None))
        self._streams.add(stream)
        if self._down:
            stream.break_off()
        return stream

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()

    def crash(self) -> None:
        """Break every stream now, and every one that is opened until `restart`."""
        self._down = True
        for stream in self._streams:
            stream.break_off()

    def restart(self) -> None:
        """End a crash."""
        self._down = False


class _FaultyStream:
    def __init__(self, stream: CloudStream, fault: LinkFault | None) -> None:
        self._stream = stream
        self._fault = fault
        self._inbox: asyncio.Queue[CloudEvent | PdError] = asyncio.Queue()
        if fault is not None and fault.kind is LinkFaultKind.REFUSED:
            self.break_off()

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        carrying = asyncio.create_task(self._carry())
        try:
            while True:
                event = await self._inbox.get()
                if isinstance(event, PdError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            carrying.cancel()
            with suppress(asyncio.CancelledError):
                await carrying

    async def send(self, message: Extend | Stop) -> None:
        if self._fault is not None and self._fault.kind is LinkFaultKind.DEAF:
            self.break_off()
            return
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()

    def break_off(self) -> None:
        """Break the stream on both ends."""
        self._stream.cancel()
        self._inbox.put_nowait(CloudUnavailable("the connection to the cloud broke"))

    async def _carry(self) -> None:
        """Pass messages on, with the fault."""
        fault, count, held = self._fault, 0, list[CloudEvent]()
        try:
            async with aclosing(self._stream.events()) as events:
                async for event in events:
                    due = fault is not None and count == fault.after
                    count += 1
                    passed = [event]
                    if fault is not None and due:
                        passed = await self._strike(fault.kind, fault.seconds, event)
                        if fault.kind is LinkFaultKind.SWAPPED:
                            passed, held = [], [event]
                    elif held:
                        passed, held = [event, *held], []
                    for each in passed:
                        self._inbox.put_nowait(each)
                for each in held:
                    self._inbox.put_nowait(each)
        except PdError as error:
            self._inbox.put_nowait(error)

    async def _strike(
        self, kind: LinkFaultKind, seconds: float, event: CloudEvent
    ) -> list[CloudEvent]:
        """Do the fault at a message; return what arrives of it."""
        match kind:
            case LinkFaultKind.CUT:
                self._stream.cancel()
                raise CloudUnavailable("the connection to the cloud broke")
            case LinkFaultKind.CHANGED:
                self._stream.cancel()
                raise LinkCorrupted("a message was changed on the way")
            case LinkFaultKind.STALLED:
                await asyncio.Event().wait()
            case LinkFaultKind.PAUSED:
                await asyncio.sleep(seconds)
            case LinkFaultKind.DOUBLED:
                return [event, event]
            case LinkFaultKind.DROPPED:
                return []
        return [event]
