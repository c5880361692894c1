"""A TCP proxy that misbehaves on command, put between the real client and the real server.

It forwards bytes in order, or not at all, and unchanged but for a bit that a test names: what it
can do to a connection is what a network does. Bytes are read in pieces and each piece leaves at a
fixed delay after it came, so the latency has no jitter of its own; a piece may be sliced, slowed,
held back or never delivered.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = ["Fault", "FaultProxy", "Faults"]

_READ_BYTES = 64 * 1024
# Pieces under way in one direction. Beyond them the sender feels it, as with a full window.
_MAX_PIECES = 256


@dataclass(slots=True)
class Fault:
    """What is done to the bytes of one direction; may be changed while connections run.

    Attributes:
        delay_s: seconds from reading a piece to passing it on (one way).
        slice_bytes: pass on at most so many bytes at once; 0 means as they came.
        bytes_per_s: bandwidth; 0 means unlimited.
        cut_after_bytes: reset the connection once so many bytes of it passed; None means never.
        flip_bit: change this bit of what passes, counted from the connection's first; once only.
    """

    delay_s: float = 0.0
    slice_bytes: int = 0
    bytes_per_s: float = 0.0
    cut_after_bytes: int | None = None
    flip_bit: int | None = None


@dataclass(slots=True)
class Faults:
    """The faults of both directions.

    Attributes:
        up: from the client to the server.
        down: from the server to the client.
        refuse: reset new connections at once.
    """

    up: Fault = field(default_factory=Fault)
    down: Fault = field(default_factory=Fault)
    refuse: bool = False


def _reset(*writers: asyncio.StreamWriter) -> None:
    """Break connections with RST, as a dead peer or a dropped NAT entry does."""
    for writer in writers:
        raw: socket.socket | None = writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


class FaultProxy:
    """Listens on a free loopback port and forwards each connection to one target.

        async with FaultProxy("127.0.0.1", server_port) as proxy:
            proxy.faults.down.delay_s = 0.05
            ...
            proxy.cut()

    Attributes:
        port: where it listens; known once entered.
        faults: what it does to traffic; change it at any time.
        num_connections: connections taken so far, refused ones included.
        bytes_up: bytes passed on to the server.
        bytes_down: bytes passed on to the client.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.faults = Faults()
        self.port = 0
        self.num_connections = 0
        self.bytes_up = 0
        self.bytes_down = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None, "entered before it is left"
        self._server.close()
        tasks = tuple(self._tasks)
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def num_open(self) -> int:
        """Connections open now."""
        return len(self._tasks)

    def stall(self) -> None:
        """Pass on nothing any more, in both directions, without closing: a black hole."""
        self._flowing.clear()

    def resume(self) -> None:
        """End a stall; what was held back goes on, in order."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every open connection now, stalled ones too; new ones are still taken."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both directions ended, or reset it."""
        self.num_connections += 1
        if self.faults.refuse:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None, "the stream server runs each connection in a task"
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            _reset(writer)  # the server cannot be reached, or cut() came before it was
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        try:
            for each in (writer, server_writer):
                each.transport.set_write_buffer_limits(0)  # drain() then means: handed over
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, up=True))
                group.create_task(self._pump(server_reader, writer, up=False))
        except* OSError:
            _reset(writer, server_writer)
        except* asyncio.CancelledError:
            _reset(writer, server_writer)
        finally:
            server_writer.close()
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Carry one direction; its end of file passes through as a half-close."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_PIECES)

        async def read() -> None:
            while piece := await reader.read(_READ_BYTES):
                await pieces.put((loop.time(), piece))
            await pieces.put((loop.time(), b""))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            passed = 0
            while True:
                read_at, piece = await pieces.get()
                fault = self.faults.up if up else self.faults.down
                await asyncio.sleep(max(0.0, read_at + fault.delay_s - loop.time()))
                if not piece:
                    await self._flowing.wait()
                    writer.write_eof()
                    return
                passed = await self._pass_on(writer, piece, passed, up=up)

    async def _pass_on(
        self, writer: asyncio.StreamWriter, piece: bytes, passed: int, *, up: bool
    ) -> int:
        """Write one piece as the faults say; return the bytes passed so far in this direction."""
        while piece:
            await self._flowing.wait()
            fault = self.faults.up if up else self.faults.down
            size = fault.slice_bytes or len(piece)
            if fault.cut_after_bytes is not None:
                size = min(size, max(0, fault.cut_after_bytes - passed))
            part, piece = _flipped(fault, piece[:size], passed), piece[size:]
            writer.write(part)
            await writer.drain()
            passed += len(part)
            if up:
                self.bytes_up += len(part)
            else:
                self.bytes_down += len(part)
            if fault.cut_after_bytes is not None and passed >= fault.cut_after_bytes:
                raise ConnectionResetError(f"cut after {passed} bytes, as asked")
            if fault.bytes_per_s:
                await asyncio.sleep(len(part) / fault.bytes_per_s)
            elif piece:
                await asyncio.sleep(0)
        return passed


def _flipped(fault: Fault, part: bytes, passed: int) -> bytes:
    """Return a part of the bytes with the bit changed that is in it, if it is."""
    at, bit = divmod(fault.flip_bit or 0, 8)
    if fault.flip_bit is None or not passed <= at < passed + len(part):
        return part
    fault.flip_bit = None
    changed = bytearray(part)
    changed[at - passed] ^= 1 << bit
    return bytes(changed)
