"""Connections that only wait: however many there are, probes and devices are answered."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.sampling_params import SamplingParams
from pd_core.sockets.listening import bind
from pd_core.sockets.reception import Reception
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1.generation_pb2_grpc import GenerationServiceStub
from pd_server.operations.control_plane import make_control_plane
from pd_server.server import Server
from tests.real_server import RealServer, real_server
from tests.server_harness import (
    Stream,
    complete,
    connect,
    prompt_of,
    running_server,
    start_message,
)

pytestmark = pytest.mark.heavy

# What a client of HTTP/2 says first, with empty settings.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
_HEADER_BEGUN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
_CROWD = 400
_FEW_FILES = 256


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("crowds"), open_files=_FEW_FILES) as running:
        yield running


@contextmanager
def _crowd(address: str, says: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections to a port that say a few bytes and then nothing."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        crowd = []
        for _ in range(_CROWD):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            with suppress(OSError):  # it may have been sent away already
                one.sendall(says)
            crowd.append(one)
        yield crowd


def _num_closed(crowd: list[socket.socket]) -> int:
    closed = 0
    for one in crowd:
        one.setblocking(False)
        try:
            while one.recv(4096):
                pass
            closed += 1
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
    return closed


def _call(address: str) -> None:
    """Make a call over a new connection."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(address, options) as channel:
        GenerationServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=60)


def _call_until_answered(address: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            return _call(address)
        except grpc.RpcError:
            assert time.monotonic() < deadline, "a new device never got in"
            time.sleep(0.1)


@pytest.mark.parametrize("says", [b"", _HEADER_BEGUN], ids=["silent", "slow"])
def test_a_crowd_at_the_http_port(server: RealServer, says: bytes) -> None:
    with _crowd(server.http_address, says) as crowd:
        assert httpx.get(f"http://{server.http_address}/healthz").status_code == 200
        _call(server.address)
        assert _num_closed(crowd) > _CROWD / 2


def test_a_crowd_that_asks_ahead_and_never_reads(server: RealServer) -> None:
    with _crowd(server.http_address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500):
        for _ in range(5):
            assert httpx.get(f"http://{server.http_address}/healthz").status_code == 200
        _call(server.address)


@pytest.mark.parametrize("says", [b"", _PREFACE], ids=["silent", "speaking HTTP/2"])
def test_a_crowd_at_the_grpc_port(server: RealServer, says: bytes) -> None:
    with grpc.insecure_channel(server.address) as known:
        stub = GenerationServiceStub(known)
        stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        with _crowd(server.address, says):
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            assert httpx.get(f"http://{server.http_address}/healthz").status_code == 200
            _call_until_answered(server.address)
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)


def test_crowds_leave_a_line_each_in_the_log(tmp_path: Path) -> None:
    with real_server(tmp_path, open_files=_FEW_FILES) as server:
        with _crowd(server.address), _crowd(server.http_address, b"no HTTP\r\n\r\n"):
            _call_until_answered(server.address)
        with _crowd(server.http_address):
            pass
        httpx.get(f"http://{server.http_address}/healthz")
    log = (tmp_path / "server.log").read_text()
    told = [line for line in log.splitlines() if " INFO " not in line]
    assert len(told) == 2, log
    assert sum("the longest idle" in line for line in told) == 1
    assert sum("never made a call" in line for line in told) == 1


def test_failed_tls_handshakes_leave_no_line(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with real_server(tmp_path, *options) as server:
        for address in (server.address, server.http_address):
            with _crowd(address, b"GET / HTTP/1.1\r\n\r\n") as crowd:
                deadline = time.monotonic() + 60
                while _num_closed(crowd) < _CROWD:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        trust = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        answer = httpx.get(f"https://{server.http_address}/healthz", verify=trust)
        assert answer.status_code == 200
    log = (tmp_path / "server.log").read_text()
    assert all(" INFO " in line for line in log.splitlines()), log[:2000]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def _raw_call(path: bytes, **others: bytes) -> bytes:
    """All that a client sends to call a method: preface, settings, headers."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        **{name.replace("_", "-").encode("latin-1"): value for name, value in others.items()},
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields.items()
    )
    return _PREFACE + _frame(1, 0x5, 1, block)


_UNREADABLE = {
    "a name of ours": _raw_call(b"/pd_proto.v1.GenerationService/Generat\xef"),
    "only that": _raw_call(b"\xff"),
    "a name of the health service": _raw_call(b"/grpc.health.v1.Health/Che\xc3"),
}


async def test_a_method_s_name_that_is_no_text_ends_nothing(tmp_path: Path) -> None:
    with real_server(tmp_path) as server:
        host, _, port = server.address.rpartition(":")
        async with connect(server.address) as stub:
            running = Stream(stub)
            await running.send(start_message(prompt_of(5), 2000, SamplingParams(ignore_eos=True)))
            await running.receive_tokens(1)

            def call(sent: bytes) -> bytes:
                with socket.create_connection((host, int(port)), timeout=60) as client:
                    client.sendall(sent)
                    heard = b""
                    while b"grpc-status" not in heard and (piece := client.recv(4096)):
                        heard += piece
                return heard

            for sent in [*_UNREADABLE.values()] * 20:  # each could end the process
                assert b"Method not found!" in await asyncio.to_thread(call, sent)
            # The same connection still serves, and so does a new one.
            assert len((await complete(stub, start_message(prompt_of(5), 3))).token_ids) == 3
            await asyncio.to_thread(_call, server.address)
            assert len((await running.rest()).token_ids) == 2000
        server.process.terminate()
        assert server.process.wait(90) == 0
    log = (tmp_path / "server.log").read_text()
    assert all(" INFO " in line for line in log.splitlines()), log


@pytest.mark.parametrize(
    "others",
    [
        {"grpc_timeout": b"\xff"},
        {"grpc_encoding": b"\xff"},
        {"user_agent": b"\xff"},
        {"authorization": b"\xff\xfe"},
        {"some_key": b"\xc3"},
        {"\xff": b"key"},
        {"content_type": b"application/grpc\xff"},
    ],
)
def test_a_header_that_is_no_text_ends_nothing(
    server: RealServer, others: dict[str, bytes]
) -> None:
    host, _, port = server.address.rpartition(":")
    path = b"/pd_proto.v1.GenerationService/GetServerInfo"
    with grpc.insecure_channel(server.address) as known:
        stub = GenerationServiceStub(known)
        stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(_raw_call(path, **others) + _frame(0, 0x1, 1, b"\0\0\0\0\0"))
            client.recv(4096)
        time.sleep(0.1)
        stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        _call(server.address)


def test_headers_that_are_no_text_leave_no_line(tmp_path: Path) -> None:
    key = b"Bearer s\xe9same"  # a key that someone wrote in Latin-1
    headers: list[dict[str, bytes]] = [{"grpc_encoding": b"\xff"}, {"authorization": key}]
    with real_server(tmp_path) as server:
        host, _, port = server.address.rpartition(":")
        for others in headers:
            with socket.create_connection((host, int(port)), timeout=60) as client:
                sent = _raw_call(b"/pd_proto.v1.GenerationService/GetServerInfo", **others)
                client.sendall(sent + _frame(0, 0x1, 1, b"\0\0\0\0\0"))
                client.recv(4096)
                time.sleep(0.3)
        _call(server.address)
    log = (tmp_path / "server.log").read_text()
    assert all(" INFO " in line for line in log.splitlines()), log


class _Echo(asyncio.Protocol):
    """A request is a line; the answer is the line, as soon as one may answer."""

    def __init__(self, may_answer: asyncio.Event | None = None) -> None:
        self.may_answer = may_answer
        self.asked = b""
        self.answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.asked += data
        if self.asked.endswith(b"\n"):
            self.answering = True
            self.task = asyncio.ensure_future(self._answer())

    async def _answer(self) -> None:
        if self.may_answer is not None:
            await self.may_answer.wait()
        self.transport.write(self.asked)
        self.asked, self.answering = b"", False


class _House:
    """A reception on a free port."""

    def __init__(
        self, most: int, *, request_s: float = 10.0, may_answer: asyncio.Event | None = None
    ) -> None:
        self.echoes = list[_Echo]()

        def echo() -> _Echo:
            self.echoes.append(_Echo(may_answer))
            return self.echoes[-1]

        self.listener = bind("127.0.0.1", 0, "--port")
        self.reception = Reception(
            self.listener,
            echo,
            lambda echo: echo.answering,
            most,
            request_s=request_s,
        )
        self.reception.open()

    async def visit(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname())

    def close(self) -> None:
        self.reception.close()
        self.listener.close()


async def _answered(guest: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Ask; return whether an answer came."""
    reader, writer = guest
    try:
        writer.write(b"hello\n")
        return await asyncio.wait_for(reader.readline(), 60) == b"hello\n"
    except ConnectionError:
        return False


async def test_a_newcomer_takes_the_place_of_the_longest_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = _House(most=3)
    first, second, third = [await house.visit() for _ in range(3)]
    for guest in (second, third, first):  # the second is now the longest quiet
        assert await _answered(guest)
    newcomer = await house.visit()
    assert await _answered(newcomer)
    assert [await _answered(guest) for guest in (first, second, third)] == [True, False, True]
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    for _, writer in (first, second, third, newcomer):
        writer.close()
    house.close()


async def test_none_that_is_being_answered_is_sent_away() -> None:
    may_answer = asyncio.Event()
    house = _House(most=2, may_answer=may_answer)
    busy = [await house.visit() for _ in range(2)]
    asked = [asyncio.ensure_future(_answered(guest)) for guest in busy]
    for _ in range(3000):
        if sum(echo.answering for echo in house.echoes) == 2:
            break
        await asyncio.sleep(0.01)
    refused = await house.visit()
    assert not await _answered(refused)
    may_answer.set()
    assert await asyncio.gather(*asked) == [True, True]
    for _, writer in (*busy, refused):
        writer.close()
    house.close()


@pytest.mark.parametrize("says", [b"", b"hel"])
async def test_a_request_that_does_not_come_ends_the_connection(says: bytes) -> None:
    house = _House(most=3, request_s=0.2)
    reader, writer = await house.visit()
    writer.write(says)
    with_trickle = asyncio.get_running_loop().time() + 60
    while not reader.at_eof() and asyncio.get_running_loop().time() < with_trickle:
        if says:
            writer.write(b"l")  # a little at a time does not help
        try:
            await asyncio.wait_for(reader.read(1), 0.05)
        except (TimeoutError, ConnectionError):
            continue
    assert reader.at_eof() or reader.exception() is not None
    writer.close()
    house.close()


async def test_a_connection_that_was_answered_may_wait() -> None:
    house = _House(most=3, request_s=4.0)  # to ask in, on a busy machine
    guest = await house.visit()
    assert await _answered(guest)
    await asyncio.sleep(4.5)
    assert await _answered(guest)
    guest[1].close()
    house.close()


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


def _get_paths(server: Server) -> list[str]:
    door: Any = make_control_plane(lambda: server.phase, lambda: None, bytes, server._keyring)
    return [route.path for route in door._app.routes if "GET" in route.methods]


async def test_head_answers_as_get_without_a_body(lm: LoadedModel) -> None:
    async with (
        running_server(lm) as server,
        httpx.AsyncClient(base_url=f"http://{server.http_address}") as client,
    ):
        paths = _get_paths(server)
        assert "/healthz" in paths
        for path in paths:
            whole, head = await client.get(path), await client.head(path)
            assert head.status_code == whole.status_code == 200, path
            assert head.content == b""
            assert head.headers["content-type"] == whole.headers["content-type"]
            if path != "/metrics":  # its figures change
                assert head.headers["content-length"] == whole.headers["content-length"]


async def test_an_idle_connection_outlives_the_pools_of_clients(lm: LoadedModel) -> None:
    async with running_server(lm) as server:
        assert server._http is not None
        assert server._http._server.config.timeout_keep_alive > 60
