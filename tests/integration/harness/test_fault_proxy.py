"""The fault proxy does to an echo server's traffic what it says, and nothing else."""

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from pd_bench.chaos.fault_proxy import FaultProxy
from tests.eventually import eventually
from tests.held_port import held_port


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """A server that sends back what it gets, and says `bye` after the client's half-close."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except OSError:
            pass  # cut, as several tests ask
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def proxy(echo_port: int) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", echo_port) as entered:
        yield entered


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(proxy: FaultProxy) -> Pair:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def _echo(pair: Pair, data: bytes) -> bytes:
    reader, writer = pair
    writer.write(data)
    await writer.drain()
    return await asyncio.wait_for(reader.readexactly(len(data)), 60)


async def _until_none_is_open(proxy: FaultProxy) -> None:
    await eventually(lambda: proxy.num_open == 0)


async def test_without_faults_bytes_pass_unchanged(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4000
    pair = await _connect(proxy)
    assert await _echo(pair, data) == data
    assert (proxy.bytes_up, proxy.bytes_down) == (len(data), len(data))
    assert (proxy.num_connections, proxy.num_open) == (1, 1)
    pair[1].close()
    await _until_none_is_open(proxy)


async def test_half_close_passes_through(proxy: FaultProxy) -> None:
    reader, writer = await _connect(proxy)
    writer.write(b"last words, ")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 60) == b"last words, bye"
    writer.close()


async def test_delay_is_added_each_way_and_does_not_add_up(proxy: FaultProxy) -> None:
    proxy.faults.up.delay_s = 0.04
    proxy.faults.down.delay_s = 0.06
    loop = asyncio.get_running_loop()
    reader, writer = await _connect(proxy)
    sent: list[float] = []
    got: list[float] = []

    async def send() -> None:
        for _ in range(60):
            sent.append(loop.time())
            writer.write(b"x")
            await asyncio.sleep(0.01)

    sending = asyncio.create_task(send())
    for _ in range(60):
        await asyncio.wait_for(reader.readexactly(1), 60)
        got.append(loop.time())
    await sending
    delays = [g - s for s, g in zip(sent, got, strict=True)]
    assert min(delays) >= 0.099
    # Pieces in flight together: one after the other, each of the last thirty would take 2.5 s.
    assert min(delays[30:]) < 1.5
    assert all(later >= earlier for earlier, later in pairwise(got))
    writer.close()


async def test_slices_bound_what_arrives_at_once(proxy: FaultProxy) -> None:
    proxy.faults.down.slice_bytes = 3
    proxy.faults.down.delay_s = 0.001
    reader, writer = await _connect(proxy)
    writer.write(b"0123456789")
    first = await asyncio.wait_for(reader.read(100), 60)
    assert len(first) <= 6  # one slice, or two that arrived together
    rest = await asyncio.wait_for(reader.readexactly(10 - len(first)), 60)
    assert first + rest == b"0123456789"
    writer.close()


async def test_bandwidth_is_limited(proxy: FaultProxy) -> None:
    proxy.faults.up.bytes_per_s = 100_000
    proxy.faults.up.slice_bytes = 1_000
    loop = asyncio.get_running_loop()
    pair = await _connect(proxy)
    took_s = list[float]()
    for _ in range(3):
        began = loop.time()
        await _echo(pair, b"x" * 20_000)
        took_s.append(loop.time() - began)
    assert 0.19 <= min(took_s) < 2.0  # the quickest, since a busy machine only adds
    pair[1].close()


async def test_stall_delivers_nothing_and_resume_everything(proxy: FaultProxy) -> None:
    pair = await _connect(proxy)
    assert await _echo(pair, b"before") == b"before"
    proxy.stall()
    pair[1].write(b"held")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair[0].read(1), 0.1)
    assert not pair[0].at_eof()
    proxy.resume()
    assert await asyncio.wait_for(pair[0].readexactly(4), 60) == b"held"
    pair[1].close()


async def test_cut_resets_open_connections_and_takes_new_ones(proxy: FaultProxy) -> None:
    pair = await _connect(proxy)
    await _echo(pair, b"alive")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(pair[0].read(1), 60)
    await _until_none_is_open(proxy)
    again = await _connect(proxy)
    assert await _echo(again, b"anew") == b"anew"
    again[1].close()


async def test_cut_ends_a_stalled_connection(proxy: FaultProxy) -> None:
    pair = await _connect(proxy)
    await _echo(pair, b"alive")
    proxy.stall()
    pair[1].write(b"never delivered")
    await asyncio.sleep(0.1)  # it may be held by then, or not: the same must come
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(pair[0].read(1), 60)
    await _until_none_is_open(proxy)


async def _receive_until_reset(sock: socket.socket) -> bytes:
    """Read a bare socket: a StreamReader forgets what it holds when the reset comes."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while True:
        try:
            piece = await asyncio.wait_for(loop.sock_recv(sock, 4096), 60)
        except ConnectionResetError:
            return bytes(received)
        assert piece, "the connection was closed in order, not reset"
        received += piece


@pytest.mark.parametrize("limit", [1, 1000, 70_000])
async def test_cut_after_bytes_delivers_exactly_those(proxy: FaultProxy, limit: int) -> None:
    proxy.faults.down.cut_after_bytes = limit
    with socket.socket() as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(sock, b"y" * 100_000)
        assert await _receive_until_reset(sock) == b"y" * limit
    assert proxy.bytes_down == limit


async def test_cut_before_the_first_byte(proxy: FaultProxy) -> None:
    proxy.faults.down.cut_after_bytes = 0
    reader, writer = await _connect(proxy)
    writer.write(b"hello")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 60)
    assert proxy.bytes_down == 0


async def test_refused_connections_are_reset(proxy: FaultProxy) -> None:
    proxy.faults.refuse = True
    reader, _ = await _connect(proxy)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 60)
    assert (proxy.num_connections, proxy.num_open) == (1, 0)


async def test_a_dead_target_resets_the_client() -> None:
    with held_port() as port:
        async with FaultProxy("127.0.0.1", port) as proxy:
            reader, _ = await _connect(proxy)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(1), 60)


async def test_leaving_the_proxy_ends_its_connections(echo_port: int) -> None:
    async with FaultProxy("127.0.0.1", echo_port) as proxy:
        reader, _ = await _connect(proxy)
        proxy.stall()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 60)
    with pytest.raises(ConnectionRefusedError):
        await _connect(proxy)
