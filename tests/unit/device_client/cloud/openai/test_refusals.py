"""Statuses and events of HTTP servers as typed errors."""

from collections.abc import AsyncIterator

import pytest

from pd_core.errors import (
    CapacityError,
    CloudAuthenticationFailed,
    CloudUnavailable,
    ProtocolError,
    QueueFull,
    RequestError,
)
from pd_device_client.cloud.openai.event_stream import json_events
from pd_device_client.cloud.openai.refusals import refusal, reported, retry_after_s


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, RequestError),
        (401, CloudAuthenticationFailed),
        (403, CloudAuthenticationFailed),
        (404, RequestError),
        (408, CloudUnavailable),
        (422, RequestError),
        (429, QueueFull),
        (500, CloudUnavailable),
        (502, CloudUnavailable),
        (503, QueueFull),
        (529, QueueFull),
        (307, CloudUnavailable),
    ],
)
def test_each_status_has_its_class(status: int, cls: type[Exception]) -> None:
    body = b'{"error": {"message": "that is so", "code": "x"}}'
    error = refusal(status, body, {})
    assert type(error) is cls
    assert status in (307,) or "that is so" in str(error)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "plain"}', "plain"),
        (b'{"detail": [{"msg": "bad field"}]}', "bad field"),
        (b'{"message": "m"}', ": m"),
        (b"<html>gateway</html>", "gateway"),
        (b"", "without a word"),
        (b"\xff\xfe\x1b[31m", "\ufffd[31m"),
        (b"[" * 100_000, "[[["),
        (b"x" * 100_000, "xxx"),
    ],
)
def test_any_body_becomes_a_short_line(body: bytes, words: str) -> None:
    text = str(refusal(500, body, {}))
    assert words in text
    assert len(text) < 400
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 1.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "1e9"}, 60.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2115 07:28:00 GMT"}, 60.0),
    ],
)
def test_the_wait_is_bounded_whatever_is_asked(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(headers) == seconds
    error = refusal(429, b"", headers)
    assert isinstance(error, CapacityError)
    assert error.retry_after_s == seconds


async def _events(*parts: bytes) -> list[object]:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return [event async for event in json_events(body())]


async def test_events_are_read_however_their_bytes_come() -> None:
    raw = (
        b': hello\r\n\r\ndata: {"a": 1}\r\n\r\ndata: {"b":\ndata: 2}\n\ndata: [DONE]\n\ndata: x\n\n'
    )
    expected = [{"a": 1}, {"b": 2}]
    assert await _events(raw) == expected
    assert await _events(*(raw[i : i + 1] for i in range(len(raw)))) == expected


@pytest.mark.parametrize(
    ("raw", "cls"),
    [
        (b'data: {"a": 1', CloudUnavailable),
        (b'data: {"a": 1}\n', CloudUnavailable),
        (b"data: {]\n\n", ProtocolError),
        (b"data: 7\n\n", ProtocolError),
        (b"data: " + b"[" * 200_000 + b"\n\n", ProtocolError),
        (b"data: " + b"x" * (5 << 20), ProtocolError),
        ((b"data: " + b"y" * 1000 + b"\n") * 5000, ProtocolError),
        (b'data: {"error": {"message": "m", "code": 429}}\n\n', QueueFull),
        (b'data: {"error": {"message": "m", "code": "400"}}\n\n', RequestError),
        (b'data: {"error": "m"}\n\n', CloudUnavailable),
        (b'error: {"code": 500, "message": "m", "type": "server_error"}\n\n', CloudUnavailable),
    ],
)
async def test_what_is_no_stream_of_events_is_a_typed_error(raw: bytes, cls: type) -> None:
    with pytest.raises(cls):
        await _events(raw)


def test_an_error_in_a_stream_has_the_class_of_its_code() -> None:
    assert type(reported({"message": "m", "code": 503})) is QueueFull
    assert type(reported({"code": None})) is CloudUnavailable
    assert type(reported([1])) is CloudUnavailable
