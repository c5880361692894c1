"""Health, readiness, metrics, the card, the key and TLS, over real sockets."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError, PortInUse
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1.generation_pb2_grpc import GenerationServiceStub
from pd_server.config import EngineConfig, ServerConfig, TlsConfig
from pd_server.engine.contract import Engine
from pd_server.server import Server
from pd_server.torch_engine.engine import TorchEngine
from tests.server_harness import (
    Stream,
    complete,
    connect,
    eventually,
    prompt_of,
    running_server,
    start_message,
    typed_error,
)

_KEY = "s3cret-key"
_AUTHORIZED = (("authorization", f"Bearer {_KEY}"),)


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture
async def server(lm: LoadedModel) -> AsyncIterator[Server]:
    async with running_server(lm, reflection=True) as server:
        yield server


@pytest.fixture
async def keyed(lm: LoadedModel) -> AsyncIterator[Server]:
    async with running_server(lm, api_key=_KEY, reflection=True) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.http_address}") as client:
        yield client


async def _health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    status: int = answer.status
    return status


async def _services(channel: grpc.aio.Channel, metadata: Any = None) -> set[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(metadata=metadata)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    answer = await asyncio.wait_for(call.read(), 60)
    return {service.name for service in answer.list_services_response.service}


async def test_probes_and_unknown_routes(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "alive"}
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "serving"})
    unknown = await http.get("/nope")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "Not Found"
    assert (await http.post("/healthz")).status_code == 405
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert (await http.get(path)).status_code == 404


async def test_the_card_over_http(http: httpx.AsyncClient, lm: LoadedModel) -> None:
    info = (await http.get("/v1/info")).json()
    assert info["model_name"] == "random-tiny"
    assert info["fingerprints"]["weights"] == lm.fingerprints.weights
    assert info["limits"]["max_num_seqs"] == info["load"]["max_num_seqs"] == 4
    assert info["sampler"] == "model"


async def test_metrics_count_what_happened(server: Server, http: httpx.AsyncClient) -> None:
    async with connect(server.grpc_address) as stub:
        await complete(stub, start_message(prompt_of(5), 7))
        refused = Stream(stub)
        await refused.send(start_message([], 7))
        await typed_error(refused)
    text = (await http.get("/metrics")).text
    lines = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    assert lines['pd_requests_finished_total{reason="length"}'] == "1.0"
    assert lines['pd_requests_failed_total{error="InvalidRequest"}'] == "1.0"
    assert lines["pd_tokens_generated_total"] == "7.0"
    assert lines["pd_requests_running"] == lines["pd_requests_waiting"] == "0.0"
    assert float(lines["pd_engine_busy_seconds_total"]) > 0
    assert float(lines["pd_kv_byte_seconds_total"]) > 0
    assert float(lines["pd_kv_peak_bytes"]) > 0
    assert lines["pd_prefill_seconds_count"] == "1.0"
    names = {line.split("{")[0].split(" ")[0] for line in lines}
    assert all(name.startswith("pd_") for name in names)


async def test_grpc_health_and_drain(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        serving = health_pb2.HealthCheckResponse.SERVING
        assert await _health(channel) == serving
        assert await _health(channel, "pd_proto.v1.GenerationService") == serving
        await server.drain()
        assert await _health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
    async with httpx.AsyncClient(base_url=f"http://{server.http_address}") as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert (await client.get("/healthz")).status_code == 200


async def test_reflection_is_off_unless_asked_for(server: Server, lm: LoadedModel) -> None:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        assert "pd_proto.v1.GenerationService" in await _services(channel)
    async with (
        running_server(lm) as plain,
        grpc.aio.insecure_channel(plain.grpc_address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _services(channel)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_it_is_alive_and_not_ready_while_the_model_loads(lm: LoadedModel) -> None:
    loading = threading.Event()

    def build() -> Engine:
        assert loading.wait(60)
        return TorchEngine(lm, 2, 64)

    config = ServerConfig(EngineConfig(max_num_seqs=2), grpc_port=0, http_port=0)
    server = Server(config, build)
    start = asyncio.create_task(server.start())
    try:
        await eventually(lambda: server._http is not None and server._http._server.started)
        async with httpx.AsyncClient(base_url=f"http://{server.http_address}") as client:
            assert (await client.get("/healthz")).status_code == 200
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
            info = await client.get("/v1/info")
            assert info.status_code == 503
            assert info.headers["retry-after"] == "1"
            loading.set()
            await start
            assert (await client.get("/readyz")).status_code == 200
    finally:
        loading.set()
        await start
        await server.stop()


async def test_with_a_key_only_health_and_readiness_are_open(keyed: Server) -> None:
    async with httpx.AsyncClient(base_url=f"http://{keyed.http_address}") as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        for path in ("/v1/info", "/metrics"):
            refused = await client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["type"] == "Unauthenticated"
            wrong = await client.get(path, headers={"authorization": "Bearer wrong"})
            assert wrong.status_code == 401
            right = await client.get(path, headers={"authorization": f"Bearer {_KEY}"})
            assert right.status_code == 200
    async with grpc.aio.insecure_channel(keyed.grpc_address) as channel:
        assert await _health(channel) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _services(channel)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await _services(channel, metadata=_AUTHORIZED)


_UNKNOWN_METHODS = ("/pd_proto.v1.GenerationService/Unknown", "/no.such.Service/Call", "/")


async def _unknown(server: Server, method: str, metadata: Any) -> grpc.aio.AioRpcError:
    """Call a method that is not there; return the error."""
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", metadata=metadata, timeout=60)
        return raised.value


@pytest.mark.parametrize("method", _UNKNOWN_METHODS)
async def test_who_has_the_key_is_told_that_a_method_is_not_there(
    keyed: Server, method: str
) -> None:
    error = await _unknown(keyed, method, _AUTHORIZED)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("metadata", [None, (("authorization", "Bearer wrong"),)])
async def test_calls_without_the_key_are_refused(keyed: Server, metadata: Any) -> None:
    async with connect(keyed.grpc_address) as stub:
        code, name, message, _ = await typed_error(Stream(stub, metadata=metadata))
        assert (code, name) == ("UNAUTHENTICATED", "Unauthenticated")
        assert _KEY not in message
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        for name in _UNKNOWN_METHODS:
            error = await _unknown(keyed, name, metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error.details() == message
    assert keyed._metrics is not None
    text = keyed._metrics.render().decode()
    assert 'pd_requests_failed_total{error="Unauthenticated"} 5.0' in text
    assert "InternalError" not in text


async def test_tls_and_key_together(lm: LoadedModel, tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = TlsConfig(tmp_path / "cert.pem", tmp_path / "key.pem")
    root = authority.cert_pem.bytes()
    async with running_server(lm, host="0.0.0.0", tls=tls, api_key=_KEY) as server:
        address = server.grpc_address.replace("0.0.0.0", "127.0.0.1")
        trusted = grpc.ssl_channel_credentials(root_certificates=root)
        async with grpc.aio.secure_channel(address, trusted) as channel:
            stub = GenerationServiceStub(channel)
            stream = Stream(stub, metadata=_AUTHORIZED)
            await stream.send(start_message(prompt_of(5), 3))
            assert (await stream.rest()).finished.tokens_generated == 3
            code, *_ = await typed_error(Stream(stub))
            assert code == "UNAUTHENTICATED"
        async with connect(address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await plain.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        http_address = server.http_address.replace("0.0.0.0", "127.0.0.1")
        context = ssl.create_default_context(cadata=root.decode())
        async with httpx.AsyncClient(
            base_url=f"https://{http_address}", verify=context, headers=dict(_AUTHORIZED)
        ) as client:
            assert (await client.get("/v1/info")).status_code == 200


@pytest.mark.parametrize("which", ["grpc_port", "http_port"])
async def test_a_taken_port_is_named_before_a_model_is_loaded(server: Server, which: str) -> None:
    address = server.grpc_address if which == "grpc_port" else server.http_address
    port = int(address.rsplit(":", 1)[1])
    settings: dict[str, Any] = {"grpc_port": 0, "http_port": 0, which: port}

    def never() -> Engine:
        raise AssertionError("the model was loaded")

    second = Server(ServerConfig(**settings), never)
    with pytest.raises(PortInUse, match=f"port {port} .*--{which.replace('_', '-')}"):
        await second.start()
    async with connect(server.grpc_address) as stub:  # the first goes on
        assert (await complete(stub, start_message([5], 2))).finished.tokens_generated == 2


async def test_an_address_of_another_machine_is_refused() -> None:
    config = ServerConfig(host="192.0.2.1", insecure=True, grpc_port=0, http_port=0)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        await Server(config, lambda: pytest.fail("loaded")).start()


async def test_more_context_than_the_model_has_is_refused(lm: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="--max-context-tokens"):
        async with running_server(lm, max_context_tokens=10**9):
            pytest.fail("it started")
