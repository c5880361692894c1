"""HTTP as probes, pools and strangers speak it."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.api_server import ApiServer, api_server, loaded_model
from tests.http_client import http


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


def _get_paths(server: ApiServer) -> list[str]:
    document = http.get(f"{server.url}/openapi.json").json()
    paths = [path for path, methods in document["paths"].items() if "get" in methods]
    named = [path.replace("{name}", loaded_model().name) for path in paths]
    return [*named, "/openapi.json", "/", "/page/main.js", "/page/icon.svg"]


def test_head_answers_as_get_without_a_body(server: ApiServer) -> None:
    paths = _get_paths(server)
    assert {"/health", "/v1/models", "/v1/models/random-tiny", "/metrics"} < set(paths)
    for path in paths:
        whole, head = http.get(server.url + path), http.head(server.url + path)
        # No response is stored here: what the API says of that has headers too.
        expected = 404 if "{response_id}" in path else 200
        assert (whole.status_code, head.status_code) == (expected, expected), path
        assert head.content == b""
        assert head.headers["content-type"] == whole.headers["content-type"]
        if path not in ("/metrics", "/v1/pd/status"):  # figures change
            assert head.headers["content-length"] == whole.headers["content-length"]


def test_a_connection_takes_request_after_request(server: ApiServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        sockets = set()
        for method in ("HEAD", "GET", "HEAD", "GET"):
            answer = client.request(method, "/health")
            sockets.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(sockets) == 1


_BODY_BEGUN = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)


@pytest.mark.parametrize("says", [b"", _BODY_BEGUN], ids=["silent", "a body begun"])
def test_a_crowd_that_only_waits_keeps_nobody_out(server: ApiServer, says: bytes) -> None:
    host, _, port = server.address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(700):  # more than it takes at once
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            with suppress(OSError):  # it may have been sent away already
                one.sendall(says)
        assert http.get(f"{server.url}/health").status_code == 200
