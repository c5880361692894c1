"""Device-only makes no way out of this machine: no channel is opened and no socket connected."""

import socket
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import grpc.aio
import httpx
import pytest

from pd_core.errors import ConfigError, RequestError, TransportError
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.egress import way_out
from pd_device_client.contract.ask import Mode
from tests.api_server import api_server, scripted_cloud
from tests.held_port import held_port

ADDRESS = CloudAddress("127.0.0.1:1", api_key="secret")


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("something tried to leave this machine")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    # gRPC's own sockets are not Python's; without a channel it has none.
    monkeypatch.setattr(grpc.aio, "insecure_channel", forbidden)
    monkeypatch.setattr(grpc.aio, "secure_channel", forbidden)


@pytest.mark.usefixtures("no_sockets")
async def test_device_only_has_no_way_out_whatever_address_is_given() -> None:
    assert way_out(ADDRESS, Mode.DEVICE_ONLY) is None
    assert way_out(None, Mode.PD_DEVICE) is None
    with pytest.raises(AssertionError, match="leave this machine"):
        way_out(ADDRESS, Mode.PD_DEVICE)


async def test_other_modes_have_one() -> None:
    link = way_out(ADDRESS, Mode.PD_DEVICE)
    assert link is not None
    await link.close()
    with pytest.raises(ConfigError, match="--cloud"):
        way_out(None, Mode.CLOUD_ONLY)


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(ADDRESS)


def test_a_device_that_is_to_stay_local_does_whatever_a_request_asks() -> None:
    cloud = scripted_cloud()
    with api_server(cloud=cloud, settings=AnswerSettings(Mode.DEVICE_ONLY)) as server:
        for mode in ("cloud-only", "pd-device"):
            body = {"prompt": "x", "max_tokens": 3, "pd": {"mode": mode}}
            done = httpx.post(f"{server.url}/v1/completions", json=body)
            assert done.json()["choices"][0]["pd"]["mode"] == "device-only"
    assert cloud.starts == []


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy in the environment that refuses every connection; its address."""
    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with held_port() as port:
        monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


@pytest.mark.usefixtures("dead_proxy")
async def test_no_proxy_comes_between_two_processes_of_one_machine() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = way_out(CloudAddress(f"127.0.0.1:{port}"), Mode.PD_DEVICE)
    assert link is not None
    try:
        # It has no methods, and says so: the call arrived.
        with pytest.raises(RequestError, match="Method not found"):
            await link.info()
    finally:
        await link.close()
        await server.stop(None)


async def test_a_proxy_on_the_way_to_another_machine_is_named(dead_proxy: str) -> None:
    link = way_out(CloudAddress("192.0.2.1:50051", insecure=True), Mode.PD_DEVICE)
    assert link is not None
    try:
        with pytest.raises(TransportError) as failed:
            await link.info()
    finally:
        await link.close()
    assert f"the variable http_proxy sends it through the proxy {dead_proxy}" in str(failed.value)
    assert "s3cret" not in str(failed.value)


async def test_the_cloud_is_told_this_program_s_version() -> None:
    agents: list[str] = []

    class Listening(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> None:
            agents.append(str(dict(details.invocation_metadata)["user-agent"]))

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Listening(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = way_out(CloudAddress(f"127.0.0.1:{port}"), Mode.PD_DEVICE)
    assert link is not None
    try:
        with pytest.raises(RequestError, match="Method not found"):
            await link.info()
    finally:
        await link.close()
        await server.stop(None)
    assert agents[0].split()[0] == f"pd-device/{version('pd-device')}"
