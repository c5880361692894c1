"""A link with added delays: an emulated network around any cloud link.

Messages keep their order in each direction, as on one connection. A message waits for the line
(bandwidth), then travels half an RTT with jitter; a lost one is sent again an RTT later. It sleeps
on the running loop, so it works with real and virtual clocks. Results are labelled emulated.
"""

import asyncio
import random
from collections.abc import AsyncGenerator

from pd_core.errors import PdError
from pd_core.generation import CloudEvent, Extend, ServerInfo, Start, Stop, Tokens
from pd_device_client.contract.ports import CloudLink, CloudStream
from pd_device_client.planning.speeds.profiles import TOKEN_BYTES, LinkProfile

__all__ = ["Lane", "ShapedCloudLink", "tokens_in"]

_HEADER_BYTES = 100  # TCP, HTTP/2 and gRPC framing of one small message


class Lane:
    """One direction of a stream on the link; computes when a message arrives.

    Args:
        profile: the link's profile.
        rng: random numbers for jitter and loss; shared by all streams of a link.
    """

    def __init__(self, profile: LinkProfile, rng: random.Random) -> None:
        self._profile = profile
        self._random = rng
        self._line_free_s = 0.0
        self._last_arrival_s = 0.0

    def arrival_s(self, now_s: float, num_tokens: int) -> float:
        """Send a message of num_tokens tokens at `now_s`; return when it arrives."""
        profile = self._profile
        sent = self._line_free_s if self._line_free_s > now_s else now_s
        if profile.bytes_per_s is not None:
            sent += (_HEADER_BYTES + TOKEN_BYTES * num_tokens) / profile.bytes_per_s
        self._line_free_s = sent
        delay = profile.rtt_s / 2 + self._random.gauss(0, profile.jitter_s)
        if delay < 0:
            delay = 0.0
        if self._random.random() < profile.loss:
            delay += profile.rtt_s
        at_s = sent + delay
        if at_s > self._last_arrival_s:  # messages keep their order
            self._last_arrival_s = at_s
        return self._last_arrival_s


def tokens_in(message: Start | Extend | Stop | CloudEvent) -> int:
    """Return how many tokens a message carries."""
    match message:
        case Start():
            return len(message.prompt_token_ids) + len(message.committed_token_ids)
        case Tokens():
            return len(message.token_ids)
        case _:
            return 0


async def _sleep_until(at_s: float) -> None:
    await asyncio.sleep(max(at_s - asyncio.get_running_loop().time(), 0.0))


class ShapedCloudLink:
    """Delays everything between a session and `link` as `profile` says.

    Args:
        link: the link underneath, which it closes.
        profile: RTT, jitter, bandwidth, loss.
        seed: seed of jitter and loss.
    """

    def __init__(self, link: CloudLink, profile: LinkProfile, seed: int = 0) -> None:
        self._link = link
        self._profile = profile
        self._random = random.Random(seed)

    async def info(self) -> ServerInfo:
        """Ask for the cloud's card; it takes a round trip."""
        await asyncio.sleep(self._profile.rtt_s)
        return await self._link.info()

    async def open(self, start: Start) -> "_ShapedStream":
        """Open a stream; `start` travels before the cloud sees it."""
        up, down = Lane(self._profile, self._random), Lane(self._profile, self._random)
        now = asyncio.get_running_loop().time()
        await _sleep_until(up.arrival_s(now, tokens_in(start)))
        return _ShapedStream(await self._link.open(start), up, down)

    async def close(self) -> None:
        """Close the link underneath."""
        await self._link.close()


class _ShapedStream:
    def __init__(self, stream: CloudStream, up: Lane, down: Lane) -> None:
        self._stream = stream
        self._up = up
        self._down = down

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        # A reader task timestamps each message on arrival, so that delays can overlap.
        arrived: asyncio.Queue[tuple[float, CloudEvent | PdError | None]] = asyncio.Queue()
        reader = asyncio.ensure_future(self._read(arrived))
        try:
            while True:
                at_s, event = await arrived.get()
                await _sleep_until(at_s)
                if event is None:
                    return
                if isinstance(event, PdError):
                    raise event
                yield event
        finally:
            reader.cancel()

    async def _read(
        self, arrived: asyncio.Queue[tuple[float, CloudEvent | PdError | None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        end: PdError | None = None
        try:
            async for event in self._stream.events():
                arrived.put_nowait((self._down.arrival_s(loop.time(), tokens_in(event)), event))
        except PdError as error:
            end = error
        arrived.put_nowait((self._down.arrival_s(loop.time(), 0), end))

    async def send(self, message: Extend | Stop) -> None:
        await _sleep_until(self._up.arrival_s(asyncio.get_running_loop().time(), 0))
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()
