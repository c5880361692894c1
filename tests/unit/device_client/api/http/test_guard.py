"""The guard hands a client's trace on, if it is one."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from pd_core.process.tracing import TRACEPARENT
from pd_device_client.api.http.guard import Access, Guard

TRACE = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"


async def _seen(*headers: tuple[bytes, bytes]) -> str:
    """Return what a request with these headers is a part of, inside the app."""
    seen = []

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(TRACEPARENT.get())

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(_message: Message) -> None:
        raise AssertionError("nothing is sent")

    scope = {
        "type": "http",
        "scheme": "http",
        "path": "/v1/models",
        "headers": [(b"host", b"localhost"), *headers],
    }
    # As each request of uvicorn is, in a task of its own.
    await asyncio.create_task(Guard(app, Access())(scope, receive, send))
    assert TRACEPARENT.get() == ""
    (found,) = seen
    return found


async def test_a_trace_is_handed_on() -> None:
    assert await _seen((b"traceparent", TRACE.encode())) == TRACE


@pytest.mark.parametrize(
    "value", [b"", b"nonsense", TRACE.encode() + b"\r\nx: y", b"00-zz", b"x" * 10_000, b"\xff"]
)
async def test_what_is_no_trace_is_not(value: bytes) -> None:
    assert await _seen((b"traceparent", value)) == ""


async def test_two_traces_are_none() -> None:
    assert await _seen((b"traceparent", TRACE.encode()), (b"traceparent", TRACE.encode())) == ""


async def test_without_one_there_is_none() -> None:
    assert await _seen() == ""
