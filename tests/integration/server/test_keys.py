"""Several keys with names and quotas, clients' certificates, and what is open without either."""

import asyncio
import ssl
import tomllib
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import CloudAuthenticationFailed, ConfigError, TransportError
from pd_device_client.cloud.client_certificate import ClientCertificate
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_proto.v1.generation_pb2 import DESCRIPTOR
from pd_proto.v1.generation_pb2_grpc import GenerationServiceStub
from pd_server.config import TlsConfig
from pd_server.server import Server
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

KEYS = {"anna": "anna-key", "bert": "bert-key"}


def _bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {KEYS[name]}"),)


def _write(path: Path, **settings: str) -> Path:
    """Write a file of keys; settings are each name's lines beyond its hash."""
    path.write_text(
        "\n".join(
            f'[keys.{name}]\nsha256 = "{sha256(KEYS[name].encode()).hexdigest()}"\n{more}'
            for name, more in settings.items()
        ),
        encoding="utf-8",
    )
    tomllib.loads(path.read_text(encoding="utf-8"))
    return path


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture
async def keyed(lm: LoadedModel, tmp_path: Path) -> AsyncIterator[Server]:
    file = _write(tmp_path / "keys.toml", anna="streams = 1", bert="")
    async with running_server(lm, pause_s=0.002, api_keys_file=file, reflection=True) as server:
        yield server


def _metrics(server: Server) -> dict[str, float]:
    assert server._metrics is not None
    lines = server._metrics.render().decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }


async def _ask(server: Server, name: str, prompt: list[int], num_tokens: int) -> list[int]:
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stream = Stream(GenerationServiceStub(channel), metadata=_bearer(name))
        await stream.send(start_message(prompt, num_tokens))
        return (await stream.rest()).token_ids


OPEN = {"/healthz", "/readyz"}
CLOSED = {"/metrics", "/v1/info", "/nope", "/", "//healthz", "/healthz/", "/healthz/../metrics"}
CLOSED |= {"/HEALTHZ", "/%6detrics", "/readyz;x", "/metrics?a=/healthz", "/v1/info#/readyz"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_no_route_but_health_answers_without_a_key(keyed: Server, method: str) -> None:
    hosts = ["127.0.0.1", "evil/healthz?", "x/readyz#", "/healthz"]
    async with httpx.AsyncClient(base_url=f"http://{keyed.http_address}") as client:
        for path in sorted(CLOSED):
            for host in hosts:
                answer = await client.request(
                    method, "/", headers={"host": host}, extensions={"target": path.encode()}
                )
                status = answer.status_code
                assert status in {400, 401}, (method, path, host)
        for path in OPEN:
            expected = 200 if method in {"GET", "HEAD"} else 405
            assert (await client.request(method, path)).status_code == expected


async def test_every_route_of_the_app_is_in_the_table(keyed: Server) -> None:
    door: Any = keyed._control_plane()
    assert {route.path for route in door._app.routes} - OPEN <= CLOSED
    assert {route.path for route in door._app.routes} >= OPEN


async def test_no_method_but_health_answers_without_a_key(keyed: Server) -> None:
    names = [
        f"/{service.full_name}/{method.name}"
        for service in DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert len(names) >= 2
    names += ["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/no.such/Call"]
    names += ["/grpc.health.v1.HealthX/Check", "//grpc.health.v1.Health/Check"]
    async with grpc.aio.insecure_channel(keyed.grpc_address) as channel:
        for name in names:
            call: Any = channel.unary_unary(name)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", timeout=60)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED, name


async def test_two_authorizations_are_none(keyed: Server) -> None:
    headers = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {KEYS['anna']}")]
    async with httpx.AsyncClient(base_url=f"http://{keyed.http_address}") as client:
        assert (await client.get("/v1/info", headers=headers)).status_code == 401


async def test_a_key_over_its_quota_is_refused_and_others_are_not(keyed: Server) -> None:
    async with grpc.aio.insecure_channel(keyed.grpc_address) as channel:
        stub = GenerationServiceStub(channel)
        first = Stream(stub, metadata=_bearer("anna"))
        await first.send(start_message(prompt_of(5), 200))
        await first.receive_tokens(1)
        second = Stream(stub, metadata=_bearer("anna"))
        await second.send(start_message(prompt_of(5), 2))
        code, name, message, delay = await typed_error(second)
        assert (code, name) == ("RESOURCE_EXHAUSTED", "QuotaExceeded")
        assert "'anna'" in message
        assert delay is not None
        assert delay > 0
        assert len(await _ask(keyed, "bert", prompt_of(5), 3)) == 3
        first.call.cancel()
        await eventually(lambda: keyed._keyring.account("Bearer anna-key").num_open == 0)
    assert len(await _ask(keyed, "anna", prompt_of(5), 3)) == 3
    assert _metrics(keyed)['pd_key_refused_total{key="anna"}'] == 1


async def test_what_each_key_used_is_counted(keyed: Server) -> None:
    await _ask(keyed, "anna", prompt_of(5), 7)
    await _ask(keyed, "bert", prompt_of(6), 3)
    await _ask(keyed, "bert", prompt_of(6), 4)
    counted = _metrics(keyed)
    assert counted['pd_key_requests_total{key="anna"}'] == 1
    assert counted['pd_key_requests_total{key="bert"}'] == 2
    assert counted['pd_key_prompt_tokens_total{key="bert"}'] == 12
    assert counted['pd_key_generated_tokens_total{key="anna"}'] == 7
    assert counted['pd_key_generated_tokens_total{key="bert"}'] == 7
    busy_s = [counted[f'pd_key_engine_seconds_total{{key="{name}"}}'] for name in KEYS]
    assert min(busy_s) > 0
    assert sum(busy_s) <= counted["pd_engine_busy_seconds_total"] * 1.001


async def test_a_stream_that_was_cut_is_counted_once_with_what_was_sent(keyed: Server) -> None:
    async with grpc.aio.insecure_channel(keyed.grpc_address) as channel:
        stream = Stream(GenerationServiceStub(channel), metadata=_bearer("bert"))
        await stream.send(start_message(prompt_of(5), 200))
        num_seen = len(await stream.receive_tokens(3))
        stream.call.cancel()
        name = 'pd_key_requests_total{key="bert"}'
        await eventually(lambda: _metrics(keyed).get(name) == 1)
    made = _metrics(keyed)['pd_key_generated_tokens_total{key="bert"}']
    assert num_seen <= made < 200


@pytest.mark.parametrize("shared", [False, True])
async def test_keys_share_a_prefix_only_when_told_to(
    lm: LoadedModel, tmp_path: Path, shared: bool
) -> None:
    file = _write(tmp_path / "keys.toml", anna="", bert="")
    prompt = prompt_of(200)

    async with running_server(lm, api_keys_file=file, share_prefixes=shared) as server:

        def hits() -> float:
            return _metrics(server)["pd_prefix_hit_tokens_total"]

        first = await _ask(server, "anna", prompt, 3)
        assert hits() == 0
        assert await _ask(server, "bert", prompt, 3) == first
        between = hits()
        assert (between > 0) is shared
        assert await _ask(server, "bert", prompt, 3) == first
        assert hits() > between


async def test_a_key_is_rotated_without_a_restart(
    lm: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pd_server.keys.key_watch.watch_keys.__defaults__", (0.01,))
    file = _write(tmp_path / "keys.toml", anna="")
    async with running_server(lm, api_keys_file=file) as server:
        await asyncio.sleep(0.1)  # it has looked once
        _write(file, bert="")
        await eventually(lambda: server._keyring.names == ("bert",))
        assert len(await _ask(server, "bert", prompt_of(5), 2)) == 2
        async with connect(server.grpc_address) as stub:
            code, *_ = await typed_error(Stream(stub, metadata=_bearer("anna")))
            assert code == "UNAUTHENTICATED"


# Clients' certificates.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


Certify = Callable[[trustme.CA, str], tuple[Path, Path]]


@pytest.fixture
def certify(tmp_path: Path) -> Certify:
    """Issue a certificate for a host and return its files, chain and key."""

    def issue(authority: trustme.CA, name: str) -> tuple[Path, Path]:
        pair = authority.issue_cert("localhost", "127.0.0.1", common_name=name)
        cert, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
        pair.private_key_pem.write_to_path(key)
        return cert, key

    return issue


@pytest.fixture
async def mutual(
    lm: LoadedModel, tmp_path: Path, authority: trustme.CA, certify: Certify
) -> AsyncIterator[Server]:
    """A server that lets in only clients whose certificate the authority signed."""
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    tls = TlsConfig(*certify(authority, "server"), client_ca=root)
    async with running_server(lm, tls=tls, api_key="k") as server:
        yield server


async def test_only_a_client_with_a_trusted_certificate_gets_through(
    mutual: Server, tmp_path: Path, authority: trustme.CA, certify: Certify
) -> None:
    root = tmp_path / "root.pem"
    known = ClientCertificate(*certify(authority, "device"))
    foreign = ClientCertificate(*certify(trustme.CA(), "stranger"))
    for client in (None, foreign):
        link = GrpcCloudLink(mutual.grpc_address, tls_ca=root, api_key="k", client=client)
        with pytest.raises(TransportError, match=r"--tls-client-cert|not trusted"):
            await link.info()
        await link.close()
    link = GrpcCloudLink(mutual.grpc_address, tls_ca=root, api_key="k", client=known)
    assert (await link.info()).model.name == "random-tiny"
    await link.close()
    # The certificate opens the connection; who calls is the key's to say.
    link = GrpcCloudLink(mutual.grpc_address, tls_ca=root, api_key="wrong", client=known)
    with pytest.raises(CloudAuthenticationFailed):
        await link.info()
    await link.close()


async def test_probes_need_no_certificate_and_the_rest_of_http_does(
    mutual: Server, authority: trustme.CA, certify: Certify
) -> None:
    url, headers = f"https://{mutual.http_address}", {"authorization": "Bearer k"}
    root = authority.cert_pem.bytes().decode()
    without, known = (ssl.create_default_context(cadata=root) for _ in range(2))
    known.load_cert_chain(*certify(authority, "prometheus"))
    foreign = ssl.create_default_context(cadata=root)
    foreign.load_cert_chain(*certify(trustme.CA(), "stranger"))
    async with httpx.AsyncClient(base_url=url, verify=without, headers=headers) as client:
        assert (await client.get("/readyz")).status_code == 200
        refused = await client.get("/metrics")
        assert refused.status_code == 401
        assert "certificate" in refused.json()["error"]["message"]
    async with httpx.AsyncClient(base_url=url, verify=known) as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
    async with httpx.AsyncClient(base_url=url, verify=foreign, headers=headers) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/metrics")


async def test_a_plain_server_and_one_with_tls_alone_ask_for_no_certificate(
    lm: LoadedModel, authority: trustme.CA, certify: Certify
) -> None:
    tls = TlsConfig(*certify(authority, "server"))
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with (
        running_server(lm, tls=tls) as server,
        httpx.AsyncClient(base_url=f"https://{server.http_address}", verify=context) as client,
    ):
        assert (await client.get("/metrics")).status_code == 200


def test_files_that_are_no_authority_or_no_certificate_are_named(
    tmp_path: Path, authority: trustme.CA, certify: Certify
) -> None:
    cert, key = certify(authority, "server")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="--tls-client-ca"):
        TlsConfig(cert, key, tmp_path / "text")
    with pytest.raises(ConfigError, match="--tls-client-ca"):
        TlsConfig(cert, key, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--tls-client-cert"):
        ClientCertificate(tmp_path / "text", key)


async def test_the_single_key_still_works_beside_named_ones(
    lm: LoadedModel, tmp_path: Path
) -> None:
    file = _write(tmp_path / "keys.toml", anna="")
    async with running_server(lm, api_keys_file=file, api_key="one") as server:
        assert server._keyring.names == ("anna", "default")
        async with connect(server.grpc_address) as stub:
            stream = Stream(stub, metadata=(("authorization", "Bearer one"),))
            await stream.send(start_message(prompt_of(5), 2))
            assert (await stream.rest()).finished.tokens_generated == 2
    async with running_server(lm) as server:
        async with connect(server.grpc_address) as stub:
            await complete(stub, start_message(prompt_of(5), 2))
        assert _metrics(server)['pd_key_requests_total{key=""}'] == 1
