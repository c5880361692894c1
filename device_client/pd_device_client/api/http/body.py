"""A request's body: bounded in size and in time, and JSON."""

import asyncio
from typing import Any

from starlette.requests import Request

from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.json_text import parse_object

__all__ = ["MAX_BODY_BYTES", "read_body"]

MAX_BODY_BYTES = 8 << 20
"""Larger bodies are refused; the longest prompt that any model here accepts is far shorter."""

_TIME_LIMIT_S = 30.0


async def read_body(
    request: Request, *, max_bytes: int = MAX_BODY_BYTES, time_limit_s: float = _TIME_LIMIT_S
) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        Refusal: it is too large (413), too slow (408), compressed or of a different type (415).
        InvalidRequest: it is not a JSON object.
        ClientDisconnect: the client disconnected.
    """
    _check_headers(request, max_bytes)
    try:
        async with asyncio.timeout(time_limit_s):
            content = await _read(request, max_bytes)
    except TimeoutError:
        raise Refusal(
            f"the body did not come within {time_limit_s:g} s; send it at once", status=408
        ) from None
    return parse_object(content)


def _check_headers(request: Request, max_bytes: int) -> None:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal("a compressed body is not read; send it as it is", status=415)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal("the body must be JSON: send Content-Type: application/json", status=415)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)


async def _read(request: Request, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(content)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(f"the body is larger than {max_bytes} bytes; send less", status=413)
